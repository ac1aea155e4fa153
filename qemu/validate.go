package qemu

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

const (
	// minMemoryMiB is what the kernel and our initrd need to get as far as an error message.
	minMemoryMiB = 128

	// maxCmdline is Linux's COMMAND_LINE_SIZE on x86-64 and arm64 less the final NUL; the kernel cuts
	// off the rest in silence.
	maxCmdline = 2047

	// maxTag is the size of the tag field in virtio-fs's configuration space (virtio 1.2, 5.11.4).
	maxTag = 36

	// maxSerial is the size of a virtio block device's identity (virtio 1.2, 5.2.6).
	maxSerial = 20

	// maxSlots is how many PCI devices fit beside the fixed ones: q35's root bus has 32 slots.
	maxSlots = 24
)

// MaxPorts is how many shares can be in slots of their own.
const MaxPorts = 32

// Validate reports what makes no sense in the configuration itself, all problems at once. It touches no
// file: whether the kernel exists is not its question.
func (c Config) Validate() error {
	errs := c.validateMachine()
	errs = append(errs, c.validateKernel()...)
	errs = append(errs, c.validateDrives()...)
	errs = append(errs, c.validateShares()...)
	if n := len(c.Drives) + c.onRootBus() + (c.Ports+portsPerSlot-1)/portsPerSlot; n > maxSlots {
		errs = append(errs, fmt.Errorf("%d drives and shares are too many for one machine: at most %d fit", n, maxSlots))
	}
	if c.Ports < 0 || c.Ports > MaxPorts {
		errs = append(errs, fmt.Errorf("%d slots for shares are too many for one machine: at most %d fit", c.Ports, MaxPorts))
	}
	if c.NIC != nil {
		errs = append(errs, c.NIC.validate()...)
	}
	// 0, 1 and 2 are reserved (any, local, host), as is the largest (vsock(7)).
	if c.VsockCID == 1 || c.VsockCID == 2 || c.VsockCID == 1<<32-1 {
		errs = append(errs, fmt.Errorf("the vsock address %d is reserved: use 3 or more", c.VsockCID))
	}
	if c.MemoryPrivate && (c.MemoryFD == 0 || len(c.Shares) > 0) {
		errs = append(errs, errors.New("private memory needs a file that it begins with, and excludes shares, whose daemons see only the file"))
	}
	errs = append(errs, c.validateFDs()...)
	return errors.Join(errs...)
}

func (c Config) validateMachine() (errs []error) {
	machines := map[Arch][]Machine{
		X86_64:  {MachineAuto, MachineMicroVM, MachineQ35},
		AArch64: {MachineAuto, MachineVirt},
	}[c.Arch]
	switch {
	case machines == nil:
		errs = append(errs, fmt.Errorf("the architecture %q is not known: use %q or %q", c.Arch, X86_64, AArch64))
	case !slices.Contains(machines, c.Machine):
		errs = append(errs, fmt.Errorf("the machine type %q is not for %s: use one of %q, or none to have one chosen",
			c.Machine, c.Arch, machines[1:]))
	}
	if c.Accel != AccelKVM && c.Accel != AccelTCG {
		errs = append(errs, fmt.Errorf("the accelerator %q is not known: use %q or %q", c.Accel, AccelKVM, AccelTCG))
	}
	if c.Machine == MachineMicroVM && c.Accel == AccelTCG {
		// With ACPI it has neither HPET nor PM timer, and Linux cannot measure the processor's clock
		// against the PIT under TCG: it stops before its console appears. KVM tells the frequency.
		errs = append(errs, fmt.Errorf("the machine type %q needs KVM: without it Linux hangs early in its boot; use %q",
			MachineMicroVM, MachineQ35))
	}
	if c.CPUs < 1 {
		errs = append(errs, fmt.Errorf("a machine needs at least 1 CPU, not %d", c.CPUs))
	}
	if c.MemoryMiB < minMemoryMiB {
		errs = append(errs, fmt.Errorf("a machine needs at least %d MiB of memory, not %d", minMemoryMiB, c.MemoryMiB))
	}
	if strings.ContainsFunc(c.Name, isControl) {
		errs = append(errs, fmt.Errorf("the machine's name %q contains a control character", c.Name))
	}
	return errs
}

func (c Config) validateKernel() (errs []error) {
	if c.Kernel == "" {
		errs = append(errs, errors.New("the path of the kernel is missing"))
	}
	for _, p := range c.Cmdline {
		if p == "" || strings.ContainsFunc(p, isControl) {
			errs = append(errs, fmt.Errorf("the kernel parameter %q is empty or contains a control character", p))
		}
	}
	// Any machine's own parameters; those of a microvm are the longest.
	if n := len(strings.Join(c.kernelParameters(MachineMicroVM), " ")); n > maxCmdline {
		errs = append(errs, fmt.Errorf("the kernel command line has %d bytes, and Linux takes %d", n, maxCmdline))
	}
	return errs
}

func (c Config) validateDrives() (errs []error) {
	// What QEMU takes for an id (id_wellformed), as long as the names of nodes, of 31 bytes, have room for it.
	wellFormed := regexp.MustCompile(`^[A-Za-z][A-Za-z0-9._-]{0,19}$`)
	seen := make(map[string]bool)
	for i, d := range c.Drives {
		if !wellFormed.MatchString(d.ID) {
			errs = append(errs, fmt.Errorf("drive %d: the id %q must be a letter followed by up to 19 letters, digits, '-', '_' or '.'", i+1, d.ID))
		}
		if seen[d.ID] {
			errs = append(errs, fmt.Errorf("drive %d: the id %q is used twice", i+1, d.ID))
		}
		seen[d.ID] = true
		if d.Path == "" {
			errs = append(errs, fmt.Errorf("drive %q: the path is missing", d.ID))
		}
		if d.Format != "raw" && d.Format != "qcow2" {
			errs = append(errs, fmt.Errorf("drive %q: the format %q is not known: use \"raw\" or \"qcow2\"", d.ID, d.Format))
		}
		if len(d.Backing) > 0 && d.Format != "qcow2" {
			errs = append(errs, fmt.Errorf("drive %q: only an image of the format qcow2 has others below it", d.ID))
		}
		if d.Mergeable < 0 || d.Mergeable > len(d.Backing) || d.Mergeable > 0 && d.ReadOnly {
			errs = append(errs, fmt.Errorf("drive %q: %d layers cannot be written to of the %d below one", d.ID, d.Mergeable, len(d.Backing)))
		}
		if len(d.Serial) > maxSerial {
			errs = append(errs, fmt.Errorf("drive %q: the serial number %q is longer than %d bytes", d.ID, d.Serial, maxSerial))
		}
	}
	return errs
}

// onRootBus is how many shares are in no slot of their own.
func (c Config) onRootBus() (n int) {
	for _, s := range c.Shares {
		if s.Port == 0 {
			n++
		}
	}
	return n
}

func (c Config) validateShares() (errs []error) {
	seen := make(map[string]bool)
	ports := make(map[int]bool)
	for i, s := range c.Shares {
		if s.Port < 0 || s.Port > c.Ports {
			errs = append(errs, fmt.Errorf("share %q: there is no slot %d among %d", s.Tag, s.Port, c.Ports))
		}
		if s.Port != 0 && ports[s.Port] {
			errs = append(errs, fmt.Errorf("share %q: the slot %d is used twice", s.Tag, s.Port))
		}
		ports[s.Port] = true
		switch {
		case s.Tag == "":
			errs = append(errs, fmt.Errorf("share %d: the tag is missing", i+1))
		case len(s.Tag) > maxTag:
			errs = append(errs, fmt.Errorf("share %d: the tag %q is longer than %d bytes", i+1, s.Tag, maxTag))
		case seen[s.Tag]:
			errs = append(errs, fmt.Errorf("share %d: the tag %q is used twice", i+1, s.Tag))
		}
		seen[s.Tag] = true
		if s.Socket == "" {
			errs = append(errs, fmt.Errorf("share %q: the path of virtiofsd's socket is missing", s.Tag))
		}
	}
	return errs
}

func (c Config) validateFDs() (errs []error) {
	for _, d := range c.Drives {
		if len(d.BackingFDs) > 0 && (d.FD == 0 || len(d.BackingFDs) != len(d.Backing)) {
			errs = append(errs, fmt.Errorf("drive %q: not all of its files are inherited", d.ID))
		}
	}
	seen := make(map[int]bool)
	for _, fd := range c.fds() {
		switch {
		case fd < firstFD:
			errs = append(errs, fmt.Errorf("the inherited descriptor %d is not %d or more", fd, firstFD))
		case seen[fd]:
			errs = append(errs, fmt.Errorf("the inherited descriptor %d is used twice", fd))
		}
		seen[fd] = true
	}
	return errs
}

// fds lists the inherited descriptors that the configuration names.
func (c Config) fds() []int {
	fds := []int{c.MemoryFD, c.VsockFD, c.MonitorFD, c.AgentFD, c.ConsoleFD, c.EarlyConsoleFD}
	for _, d := range c.Drives {
		fds = append(append(fds, d.FD), d.BackingFDs...)
	}
	for _, s := range c.Shares {
		fds = append(fds, s.FD)
	}
	if c.NIC != nil && c.NIC.Backend != nil {
		fds = append(fds, c.NIC.Backend.fd())
	}
	return slices.DeleteFunc(fds, func(fd int) bool { return fd == 0 })
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }
