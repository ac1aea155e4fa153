package qemu

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The device models. All but the last two are virtio on PCI: one driver family in the guest, the same on every machine type.
const (
	deviceRandom  = "virtio-rng-pci"
	deviceDrive   = "virtio-blk-pci"
	deviceShare   = "vhost-user-fs-pci"
	deviceNetwork = "virtio-net-pci"
	deviceVsock   = "vhost-vsock-pci"
	deviceSerial  = "virtio-serial-pci"
	deviceBalloon = "virtio-balloon-pci"
	devicePanic   = "pvpanic-pci"
	devicePort    = "pcie-root-port"
)

// serialPorts are a console's and the agent's. Each has two queues, whether it is used or not, that QEMU looks at
// whenever anything at all happens, and the guest sets up: with QEMU's own 31, that is most of what it looks at.
const serialPorts = 2

// ManySerialPorts is QEMU's own number of them.
const ManySerialPorts = 31

// addMachine adds the board, its accelerator, processors and memory.
func (c Config) addMachine(a *argv, machine Machine) {
	memory := a.id("mem")
	pairs := append(c.machineProperties(machine), "memory-backend", memory)
	// By default the host's kernel may unite equal pages of all its guests (KSM), and whoever can tell a page that
	// is from one that is not learns what is in another guest's memory.
	a.option("-machine", string(machine), append(pairs, "mem-merge", "off")...)
	c.addProcessor(a)
	a.option("-smp", "", "cpus", strconv.Itoa(c.CPUs))
	size := strconv.Itoa(c.MemoryMiB) + "M"
	a.option("-m", "", "size", size)
	c.addMemory(a, memory, size)
}

// addFirmware gives microvm the firmware qboot, which has the ACPI tables below the first MiB. By default it is SeaBIOS,
// which has them at the end of the memory below 4 GiB, where QEMU puts the initial RAM file system, too: on this machine
// type it leaves no room for them, as others do (x86_load_linux). Unless the last page of the initrd happens to be
// nearly empty, it overwrites the tables, and the guest hangs or has no PCI bus.
func (c Config) addFirmware(a *argv, machine Machine, caps Capabilities) {
	if machine == MachineMicroVM {
		a.flag("-bios", cmp.Or(c.firmware, caps.QBoot))
	}
}

// addMemory adds what holds the guest's memory. It is not in core dumps: it holds the guest's secrets.
func (c Config) addMemory(a *argv, id, size string) {
	if c.MemoryFD == 0 {
		// A shared mapping, because virtiofsd reads and writes the guest's memory; a memfd, because it
		// needs no file system and vanishes with QEMU.
		a.option("-object", "memory-backend-memfd", "id", id, "size", size, "share", "on", "dump", "off")
		return
	}
	pairs := []string{"id", id, "size", size, "mem-path", fmt.Sprintf("/proc/self/fd/%d", c.MemoryFD), "dump", "off"}
	if c.MemoryPrivate {
		// Without rom=off, memory from a file that is only read could not be written to either.
		pairs = append(pairs, "share", "off", "readonly", "on", "rom", "off")
	} else {
		pairs = append(pairs, "share", "on")
	}
	a.option("-object", "memory-backend-file", pairs...)
}

// machineProperties trims each board to what a virtio guest uses.
func (c Config) machineProperties(machine Machine) []string {
	switch machine {
	case MachineMicroVM:
		return []string{
			"acpi", "on", // how the guest finds PCIe, and how it is asked to power down
			"pcie", "on", // all our devices are PCI devices
			"rtc", "on", // the guest starts with the right time
			"isa-serial", "off", // the console is virtio
			// pit and pic stay: without them a guest hangs under TCG always, and under KVM
			// where the processor has no TSC_DEADLINE.
		}
	case MachineQ35:
		return []string{
			"sata", "off", // an AHCI controller costs seconds of probing under TCG
			"smbus", "off",
			"usb", "off",
			"vmport", "off", // VMware's back door
		}
	case MachineVirt:
		gic := "3" // the default, 2, ends at 8 processors
		if c.Accel == AccelKVM {
			gic = "host" // KVM offers only what the host's controller can do
		}
		return []string{"gic-version", gic}
	}
	return nil
}

// addProcessor adds what executes the guest's instructions, and as what it shows itself.
func (c Config) addProcessor(a *argv) {
	a.option("-accel", string(c.Accel))
	switch {
	case c.Accel == AccelKVM:
		a.option("-cpu", "host")
	case c.Arch == AArch64:
		// A third faster than max,pauth-impdef=on and five times as fast as plain max, which
		// computes pointer authentication in software.
		a.option("-cpu", "cortex-a57")
	default:
		a.option("-cpu", "max")
	}
}

// addKernel boots the kernel directly, without boot loader or disk.
func (c Config) addKernel(a *argv, machine Machine) {
	a.flag("-kernel", c.Kernel)
	if c.Initrd != "" {
		a.flag("-initrd", c.Initrd)
	}
	a.flag("-append", strings.Join(c.kernelParameters(machine), " "))
}

// kernelParameters puts the machine's own before the caller's, so that the caller's win.
func (c Config) kernelParameters(machine Machine) []string {
	var list []string
	if c.ConsoleFD != 0 {
		// Cheaper than an emulated UART. Not quiet: a boot that fails is explained by its log,
		// and silence saves no time.
		list = append(list, "console=hvc0")
	}
	list = append(list, "panic=-1") // reboot at once, which -no-reboot turns into QEMU's end
	if c.EarlyConsoleFD != 0 {
		// Until hvc0 takes over: what a kernel says that does not get that far.
		list = append(list, map[bool]string{true: "earlycon", false: "earlyprintk=ttyS0,115200"}[machine == MachineVirt])
	}
	if c.Ports > 0 && machine == MachineMicroVM {
		list = append(list, "pcie_ports=native") // its ACPI tables leave hot-plug to nobody (_OSC)
	}
	if machine != MachineVirt {
		list = append(list, "reboot=t") // a triple fault works on every PC, firmware or not
	}
	return append(list, c.Cmdline...)
}

func addSocket(a *argv, stem string, fd int) (id string) {
	id = a.id(stem)
	a.option("-chardev", "socket", "id", id, "fd", strconv.Itoa(fd))
	return id
}

// addMonitor puts QMP on an inherited socket: no path to race for, nobody else can connect.
func (c Config) addMonitor(a *argv) {
	if c.MonitorFD == 0 {
		return
	}
	a.option("-mon", "", "chardev", addSocket(a, "qmp", c.MonitorFD), "mode", "control")
}

// addSerial adds the console and the agent's port.
func (c Config) addSerial(a *argv) {
	if c.ConsoleFD == 0 && c.AgentFD == 0 {
		return
	}
	bus := a.id("serial")
	a.option("-device", deviceSerial, "id", bus, "max_ports", strconv.Itoa(cmp.Or(c.SerialPorts, serialPorts)))
	if c.ConsoleFD != 0 {
		// Port 0 is kept for consoles; there it becomes hvc0.
		a.option("-device", "virtconsole", "bus", bus+".0", "nr", "0", "chardev", addSocket(a, "console", c.ConsoleFD))
	}
	if c.AgentFD != 0 {
		a.option("-device", "virtserialport", "bus", bus+".0", "nr", "1",
			"chardev", addSocket(a, "agent", c.AgentFD), "name", AgentPort)
	}
}

// addEarlyConsole adds the board's own serial port.
func (c Config) addEarlyConsole(a *argv) {
	if c.EarlyConsoleFD != 0 {
		a.flag("-serial", "chardev:"+addSocket(a, "early", c.EarlyConsoleFD))
	}
}

// addRandom gives the guest entropy from the first moment, without which TLS and ssh wait.
func addRandom(a *argv) {
	rng := a.id("rng")
	a.option("-object", "rng-builtin", "id", rng) // needs no file, unlike rng-random
	a.option("-device", deviceRandom, "rng", rng)
}

func addDrive(a *argv, d Drive) {
	files := append(slices.Clone(d.BackingFDs), d.FD)
	var top string
	for n, path := range append(slices.Clone(d.Backing), d.Path) {
		if d.FD != 0 {
			path = addFile(a, files[n])
		}
		top = LayerNode(d.ID, n)
		image := imageNode(d.Format, top, path, !d.writable(n))
		switch {
		case n > 0:
			// By name, because QEMU would believe the path in the image's header.
			image["backing"] = LayerNode(d.ID, n-1)
		case d.Format == "qcow2":
			image["backing"] = nil // whatever its header says
		}
		a.object("-blockdev", image)
	}
	pairs := []string{"id", d.ID, "drive", top}
	if d.Serial != "" {
		pairs = append(pairs, "serial", d.Serial)
	}
	if !d.ReadOnly {
		// When the host's file system is full the guest is stopped, with the write in QEMU's
		// hands, and "cont" tries that again: the guest never learns of it. Other errors are
		// for the guest's file system to deal with.
		pairs = append(pairs, "werror", "enospc", "rerror", "report")
	}
	a.option("-device", deviceDrive, pairs...)
}

// imageNode describes an image and the file that it is in (BlockdevOptions in QEMU's QAPI schema).
func imageNode(format, node, path string, readOnly bool) map[string]any {
	// aio=threads: io_uring is forbidden in many containers, where QEMU then fails to start.
	file := map[string]any{"driver": "file", "filename": path, "aio": "threads", "read-only": readOnly}
	image := map[string]any{"driver": format, "node-name": node, "file": file, "read-only": readOnly}
	if readOnly {
		// Images are immutable and shared; locks would only fail on file systems without them.
		file["locking"] = "off"
		return image
	}
	// Locked even where QEMU would do without: two guests on one disk destroy it.
	// What the guest deletes, the host gets back. The host's page cache stays in use, and a
	// flush of the guest's reaches the host's disk: both are the defaults.
	file["locking"], file["discard"] = "on", "unmap"
	image["discard"], image["detect-zeroes"] = "unmap", "unmap" // zeroes take no space either
	return image
}

// addFile returns a path for an inherited descriptor that QEMU does not open anew but takes as it is. So it needs
// no right to the file, and gets no more of it than the descriptor allows.
func addFile(a *argv, fd int) (path string) {
	set := strconv.Itoa(a.number("fdset") + 1) // sets begin at 1, as those do that QEMU numbers
	a.option("-add-fd", "", "fd", strconv.Itoa(fd), "set", set)
	return "/dev/fdset/" + set
}

// The ports are functions of the last slots of the root bus before that of q35's bridge, out of the way of what QEMU
// puts into the first free ones.
const (
	portsPerSlot = 8
	lastPortSlot = 0x1e
)

// addPorts adds PCI Express root ports, each with a slot of its own behind it: what is on the root bus itself stays
// there for good.
func addPorts(a *argv, count int) {
	for n := range count {
		pairs := []string{
			"id", portID(n + 1), "chassis", strconv.Itoa(n + 1), "slot", strconv.Itoa(n + 1),
			"addr", fmt.Sprintf("%x.%x", lastPortSlot-n/portsPerSlot, n%portsPerSlot),
			"io-reserve", "0", // devices of PCI Express need no I/O ports, of which a machine has few
		}
		if n%portsPerSlot == 0 {
			pairs = append(pairs, "multifunction", "on")
		}
		a.option("-device", devicePort, pairs...)
	}
}

// portID names the port of that number, and the bus behind it.
func portID(number int) string { return "port" + strconv.Itoa(number) }

func addShare(a *argv, s Share) {
	fs := a.id("fs")
	if s.Port != 0 {
		fs = s.DeviceID()
	}
	if s.FD != 0 {
		a.option("-chardev", "socket", "id", fs, "fd", strconv.Itoa(s.FD))
	} else {
		a.option("-chardev", "socket", "id", fs, "path", s.Socket)
	}
	var pairs []string
	for _, p := range s.properties(fs) {
		pairs = append(pairs, p.name, p.text)
	}
	a.option("-device", deviceShare, pairs...)
}

func (c Config) addVsock(a *argv) {
	pairs := []string{"guest-cid", strconv.FormatUint(uint64(c.VsockCID), 10)}
	if c.VsockFD != 0 {
		pairs = append(pairs, "vhostfd", strconv.Itoa(c.VsockFD))
	}
	a.option("-device", deviceVsock, pairs...)
}
