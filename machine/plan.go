package machine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Plan is how a configuration will run on this machine at this moment.
type Plan struct {
	Hardware  Hardware // that was asked for
	Image     *image.Image
	QEMU      qemu.Capabilities
	KVM       qemu.KVM
	Virtiofsd virtiofs.Daemon
	Shares    []virtiofs.Share // in the order in which the guest mounts them
	Transport agent.Transport  // never auto
	VM        qemu.Config      // without what only a start knows: sockets, ports, keys
	HostCA    []byte           // certificates that the guest is to believe, in PEM
	Notes     []string         // what the user should know, such as a slow accelerator
}

// Plan checks everything that can be checked before anything is created, and
// decides what the configuration leaves open. Its error lists every problem
// that it found, each with its remedy.
func (h *Host) Plan(ctx context.Context, c Config, img *image.Image) (*Plan, error) {
	p := &Plan{Hardware: c.Hardware, Image: img}
	arch, archErr := guestArch(img.Manifest.System)
	errs := []error{c.Validate(), archErr, h.checkSocketPath(c), checkMemory(c.MemoryMiB), h.checkShares(c), c.checkSecretFiles()}
	var err error
	if p.Virtiofsd, err = virtiofs.Find(ctx); err != nil {
		errs = append(errs, err)
	}
	if p.Shares, err = virtiofs.Arrange(c.Shares, img.Manifest.User.Home); err != nil {
		errs = append(errs, err)
	}
	if p.HostCA, err = readHostCA(c.TrustHostCA, addedCertificates); err != nil {
		errs = append(errs, err)
	}
	if p.Transport, err = chooseTransport(c.Transport); err != nil {
		errs = append(errs, err)
	}
	if archErr == nil {
		errs = append(errs, p.chooseQEMU(ctx, arch, h.Dirs.Cache))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	m := img.Manifest
	p.VM = qemu.Config{
		Name: c.Name, Arch: arch, Machine: c.Machine, Accel: qemu.AccelTCG,
		CPUs: c.CPUs, MemoryMiB: c.MemoryMiB, Ports: ShareSlots(len(p.Shares) + c.TemplateShares),
		Kernel: img.Kernel(), Initrd: img.Initrd(), Cmdline: m.Cmdline,
		Drives: []qemu.Drive{{ID: "store", Path: img.Store(), Format: "raw", ReadOnly: true, Serial: "store"}},
	}
	if p.KVM.Usable {
		p.VM.Accel = qemu.AccelKVM
	} else {
		p.Notes = append(p.Notes, fmt.Sprintf("KVM is not used: %s\nThe guest is emulated in software (TCG): many times slower, and by the word of QEMU's makers no security boundary.\nRemedy: %s", p.KVM.Reason, p.KVM.Remedy))
	}
	if c.Remove && slices.ContainsFunc(c.Shares, copyOnWrite) {
		p.Notes = append(p.Notes, "what the guest changes in a copy-on-write share goes with the sandbox, which is removed when it stops: apply it before")
	}
	if c.Remove && slices.ContainsFunc(c.Shares, func(s virtiofs.Share) bool { return s.Clone != "" }) {
		p.Notes = append(p.Notes, "what the guest commits in a clone goes with the sandbox, which is removed when it stops: have it pushed before")
	}
	p.VM.Machine = p.VM.ChooseMachine(p.QEMU)
	return p, p.VM.Validate()
}

func (p *Plan) chooseQEMU(ctx context.Context, arch qemu.Arch, cache string) error {
	binary, err := qemu.Find(arch)
	if err != nil {
		return err
	}
	if p.QEMU, err = qemu.Probe(ctx, binary, cache); err != nil {
		return err
	}
	p.KVM, err = qemu.ProbeKVM(ctx, p.QEMU, arch, cache)
	return err
}

// NIC returns the network card of a sandbox of that name, or nil if it has none. That of
// a network of ours has the socket fd.
func (h Hardware) NIC(name string, fd int) *qemu.NIC {
	nic := &qemu.NIC{MAC: network.MAC(name).String()}
	switch {
	case h.Network == network.ModeNone:
		return nil
	case h.Network.Judged():
		nic.MTU, nic.Backend = gateway.MTU, qemu.DatagramSocket{FD: fd}
	default:
		nic.Backend = qemu.UserNetwork{}
	}
	return nic
}

func guestArch(system string) (qemu.Arch, error) {
	arch, os, _ := strings.Cut(system, "-")
	if os != "linux" || (arch != "x86_64" && arch != "aarch64") {
		return "", fmt.Errorf("the image is for %q, which cannot be run: only x86_64-linux and aarch64-linux can", system)
	}
	return qemu.Arch(arch), nil
}

const vhostVsock = "/dev/vhost-vsock"

func chooseTransport(t agent.Transport) (agent.Transport, error) {
	err := unix.Access(vhostVsock, unix.R_OK|unix.W_OK)
	switch {
	case t == agent.TransportSerial || (t == agent.TransportAuto && err != nil):
		return agent.TransportSerial, nil
	case err != nil:
		return "", remedy.Add(fmt.Errorf("the vsock transport needs %s (%w), with the kernel module vhost_vsock and access for you", vhostVsock, err), remedy.Set, "transport", "serial")
	}
	return agent.TransportVsock, nil
}

// checkSocketPath finds a runtime directory whose sockets no program could
// open.
func (h *Host) checkSocketPath(c Config) error {
	s := &Sandbox{Name: c.Name, host: h}
	longest := s.Files().API()
	for _, place := range SharePlaces(len(c.Shares)) {
		if socket := s.Files().Share(place.Tag); len(socket) > len(longest) {
			longest = socket
		}
	}
	if over := len(longest) - layout.MaxSocketPath; over > 0 {
		return remedy.Add(fmt.Errorf("the socket path %s is %d bytes too long (the kernel allows %d)", longest, over, layout.MaxSocketPath), remedy.ShorterName)
	}
	return nil
}

func checkMemory(want int) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("reading the size of the memory: %w", err)
	}
	has := int(uint64(info.Totalram) * uint64(info.Unit) >> 20)
	if want > has {
		return remedy.Add(fmt.Errorf("the sandbox is to have %d MiB of memory, but this machine has %d MiB", want, has), remedy.LessMemory)
	}
	return nil
}
