package snapshot

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Needs is what a machine must be like for a snapshot to be restored in it.
type Needs struct {
	Image     image.Ref        `json:"image"`
	QEMU      string           `json:"qemu"` // major and minor version: machine types change with it
	Machine   qemu.Machine     `json:"machine"`
	Accel     qemu.Accel       `json:"accel"`
	CPU       string           `json:"cpu"`
	CPUs      int              `json:"cpus"`
	MemoryMiB int              `json:"memoryMiB"`
	DiskMiB   int              `json:"diskMiB"`
	Caches    []string         `json:"caches,omitempty"`
	Transport agent.Transport  `json:"transport"`
	Network   string           `json:"network"`
	Shares    []virtiofs.Share `json:"shares"`

	// Ports is how many slots for shares the machine has; one from before there were any has none. A restore gives it
	// what it needs.
	Ports int `json:"ports,omitempty"`
	// Places are where the devices of the shares are, in the order of Shares or, of a template, in any.
	Places []Place `json:"places,omitempty"`

	// SerialPorts is qemu.Config's; 0 in versions before 4: qemu.ManySerialPorts. A restore gives the machine what it needs.
	SerialPorts int `json:"serialPorts,omitempty"`

	// EarlyConsole is a device that a machine gets which did not start at first. A restore gives it what it needs.
	EarlyConsole bool `json:"earlyConsole,omitempty"`
}

// Place is where the device of a share is in a machine, and what the guest knows it by.
type Place struct {
	Tag  string `json:"tag"`
	Port int    `json:"port,omitempty"` // see qemu.Share
}

// SharePlaces are those of the shares in a machine that has the state of the snapshot, in which they are in any order. The
// shares of a template, which is nobody's, are in their own order.
func (n Needs) SharePlaces(shares []virtiofs.Share, template bool) ([]Place, error) {
	saved := n.Places
	if n.Ports == 0 {
		for i := range shares {
			saved = append(saved, Place{Tag: fmt.Sprintf("share%d", i)})
		}
	}
	damaged := len(saved) != len(shares) || !template && len(n.Shares) != len(shares)
	places := slices.Clone(saved)
	for i := range shares {
		if template || damaged {
			break
		}
		at := slices.IndexFunc(n.Shares, func(s virtiofs.Share) bool { return s.Target == shares[i].Target })
		if damaged = at < 0; !damaged {
			places[i] = saved[at]
		}
	}
	if damaged {
		return nil, errors.New("the snapshot does not tell where the devices of its shares are: it was changed, so save a new one")
	}
	return places, nil
}

// Property is something about a machine on which a snapshot depends.
type Property string

// The properties of Needs.
const (
	PropertyImage     Property = "the image"
	PropertyQEMU      Property = "QEMU's version"
	PropertyMachine   Property = "the machine type"
	PropertyAccel     Property = "the accelerator"
	PropertyCPU       Property = "the processor"
	PropertyCPUs      Property = "the number of CPUs"
	PropertyMemory    Property = "the memory in MiB"
	PropertyDisk      Property = "the disk in MiB"
	PropertyCaches    Property = "the list of caches"
	PropertyTransport Property = "the agent's transport"
	PropertyNetwork   Property = "the network"
	PropertyShares    Property = "the list of shares"
)

// Difference is a property in which a machine is not what a snapshot needs.
type Difference struct {
	Property Property
	Was, Is  string
}

func (d Difference) String() string {
	return fmt.Sprintf("%s was %s and is %s", d.Property, d.Was, d.Is)
}

// Differences lists what a machine that is like here lacks.
func (n Needs) Differences(here Needs) []Difference {
	var list []Difference
	compare := func(p Property, needed, is any) {
		if needed, is := fmt.Sprint(needed), fmt.Sprint(is); needed != is {
			list = append(list, Difference{p, needed, is})
		}
	}
	compare(PropertyImage, n.Image, here.Image)
	compare(PropertyQEMU, n.QEMU, here.QEMU)
	compare(PropertyMachine, n.Machine, here.Machine)
	compare(PropertyAccel, n.Accel, here.Accel)
	compare(PropertyCPU, n.CPU, here.CPU)
	compare(PropertyCPUs, n.CPUs, here.CPUs)
	compare(PropertyMemory, n.MemoryMiB, here.MemoryMiB)
	// A disk that was smaller then is grown once it is restored.
	if n.DiskMiB > here.DiskMiB || (n.DiskMiB == 0) != (here.DiskMiB == 0) {
		compare(PropertyDisk, n.DiskMiB, here.DiskMiB)
	}
	compare(PropertyCaches, n.Caches, here.Caches)
	compare(PropertyTransport, n.Transport, here.Transport)
	compare(PropertyNetwork, n.Network, here.Network)
	compare(PropertyShares, byTarget(n.Shares), byTarget(here.Shares))
	return list
}

// byTarget is the shares in an order that does not depend on which of them was mounted first.
func byTarget(shares []virtiofs.Share) []virtiofs.Share {
	return slices.SortedFunc(slices.Values(shares), func(a, b virtiofs.Share) int { return strings.Compare(a.Target, b.Target) })
}

// Processor says what executes the guest, as far as a snapshot depends on it.
// Under KVM it is the host's own, with what that can do.
func Processor(accel qemu.Accel) (string, error) {
	if accel == qemu.AccelTCG {
		return "emulated", nil
	}
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", fmt.Errorf("asking what processor this is: %w", err)
	}
	return hostProcessor(string(data)), nil
}

// hostProcessor takes the content of /proc/cpuinfo (proc_cpuinfo(5)).
func hostProcessor(cpuinfo string) string {
	var model string
	features := sha256.New()
	first, _, _ := strings.Cut(cpuinfo, "\n\n")
	for line := range strings.Lines(first) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "model name", "CPU part":
			model = strings.TrimSpace(value)
		case "flags", "Features":
			features.Write([]byte(value))
		}
	}
	return fmt.Sprintf("%s with the features %x", model, features.Sum(nil)[:6])
}

// CheckQEMU refuses a QEMU that is too old to save any machine, with what to do.
func CheckQEMU(version qemu.Version) error {
	if version.AtLeast(9, 0) {
		return nil
	}
	return fmt.Errorf("snapshots need QEMU 9.0 or newer, and this is QEMU %s: install a newer one (on Debian 12 the backports have 10.0)", version)
}
