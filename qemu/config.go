package qemu

import (
	"runtime"
	"slices"
)

// Arch is a guest's processor architecture, in QEMU's spelling.
type Arch string

// The architectures that Args knows.
const (
	X86_64  Arch = "x86_64"
	AArch64 Arch = "aarch64"
)

// HostArch returns this machine's architecture. Others than the known ones are returned in Go's spelling,
// and Validate refuses them.
func HostArch() Arch {
	switch runtime.GOARCH {
	case "amd64":
		return X86_64
	case "arm64":
		return AArch64
	}
	return Arch(runtime.GOARCH)
}

// Accel is what executes the guest's instructions.
type Accel string

// The accelerators: hardware virtualisation, and QEMU's emulator, which is slow and by QEMU's own
// statement no security boundary.
const (
	AccelKVM Accel = "kvm"
	AccelTCG Accel = "tcg"
)

// Machine is a QEMU machine type.
type Machine string

// The machine types. MicroVM boots fastest and needs KVM, as under TCG it hangs in one boot of seven, and the firmware
// qboot: see addFirmware.
const (
	MachineAuto    Machine = ""
	MachineMicroVM Machine = "microvm"
	MachineQ35     Machine = "q35"
	MachineVirt    Machine = "virt"
)

// Config describes a guest. The zero value is not valid; see Validate.
type Config struct {
	Name    string // shown by ps and in the monitor; may be empty
	Arch    Arch
	Machine Machine // MachineAuto chooses by Arch and Accel
	Accel   Accel

	CPUs      int // virtual processors
	MemoryMiB int

	Kernel  string   // path of the kernel image
	Initrd  string   // path of the initial RAM file system; may be empty
	Cmdline []string // kernel parameters, appended to those that the machine itself asks for

	Drives []Drive // /dev/vda, /dev/vdb, … in this order
	Shares []Share
	Ports  int  // slots for Shares, of which those that are free can get one while the guest runs: at most MaxPorts
	NIC    *NIC // nil: no network interface

	VsockCID uint32 // the guest's vsock address; 0: no vsock device
	VsockFD  int    // inherited /dev/vhost-vsock; 0: QEMU opens it

	// Paused lets the machine wait for Cont of package qmp before its first instruction.
	Paused bool

	// Incoming lets the machine wait for its state, which LoadState of package qmp gives it, in place of
	// booting. It must be configured as the machine was that the state is of.
	Incoming bool

	// MemoryFD is an inherited file of MemoryBytes that becomes the guest's memory: one of memfd_create(2), or with
	// MemoryPrivate any; 0: QEMU makes its own, which nobody else can see. With the file at hand, memory can be saved, loaded and
	// copied while the guest stands still, without QEMU: see SaveState of package qmp.
	MemoryFD int

	// MemoryPrivate leaves the file of MemoryFD as it is, so that many guests can begin with the same memory
	// and share what none of them changes. Such a guest can have no Shares, because their daemons see only
	// the file. It needs QEMU 8.2.
	MemoryPrivate bool

	// Inherited, connected stream sockets, by the number that they have in QEMU (see Files); 0: absent.
	MonitorFD int // QMP
	AgentFD   int // the virtio-serial port named AgentPort
	ConsoleFD int // hvc0, the kernel's console

	// EarlyConsoleFD is the same for what the kernel says before it has hvc0. It is a device more than other
	// guests have, which counts for states that are saved and loaded.
	EarlyConsoleFD int

	// SerialPorts is how many ports the virtio-serial device has, which counts for states that are saved and loaded; 0: those
	// that are used. A state from before there was a choice is one of ManySerialPorts.
	SerialPorts int

	firmware string // path of what was opened of Capabilities.QBoot
}

// AgentPort is the name under which the guest finds the port of Config.AgentFD, in
// /sys/class/virtio-ports/*/name.
const AgentPort = "sandbox.agent.0"

// Drive is a virtio block device backed by a file. QEMU locks the file of a writable one, gives what the
// guest discards back to the host, and stops the guest (event BLOCK_IO_ERROR with nospace, run state
// StateIOError of package qmp) when the host has no space left.
type Drive struct {
	ID       string // unique; letters, digits, '-', '_' and '.'
	Path     string
	Format   string   // "raw" or "qcow2"
	Backing  []string // paths of the layers below Path, all qcow2, the lowest first
	ReadOnly bool
	Serial   string // at most 20 bytes, in /sys/block/*/serial; may be empty

	// Inherited, used instead of Path and Backing, all or none.
	FD         int
	BackingFDs []int

	// Mergeable is how many layers of Backing, the uppermost ones, can be written to, so that what is above can be
	// united with them: see MergeLayer of package qmp. The others are only read.
	Mergeable int
}

// writable tells whether QEMU may write to a layer; the lowest is number 0.
func (d Drive) writable(layer int) bool { return !d.ReadOnly && layer >= len(d.Backing)-d.Mergeable }

// Share is a directory served over virtio-fs by a daemon that listens on Socket.
type Share struct {
	Tag    string // the name to mount in the guest, at most 36 bytes
	Socket string
	FD     int // inherited socket that is connected to the daemon, used instead of Socket; 0: none

	// Port is the number of the slot, from 1 to Config.Ports, that the device is in. In none, it is on the root bus (0),
	// from which nothing can be unplugged.
	Port int
}

// ChooseMachine returns the machine type that Args uses: c.Machine, or what suits if that is MachineAuto.
func (c Config) ChooseMachine(caps Capabilities) Machine {
	switch {
	case c.Machine != MachineAuto:
		return c.Machine
	case c.Arch == AArch64:
		return MachineVirt
	case c.Accel == AccelKVM && slices.Contains(caps.Machines, string(MachineMicroVM)) && caps.CheckFirmware() == nil:
		return MachineMicroVM
	}
	return MachineQ35
}

// MemoryBytes is how large the file of Config.MemoryFD must be.
func (c Config) MemoryBytes() int64 { return int64(c.MemoryMiB) << 20 }
