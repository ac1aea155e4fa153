package qemu_test

import (
	"fmt"

	"github.com/sourcery-zone/sandbox/qemu"
)

// Example shows the command line of a small machine. The capabilities come from Probe in earnest.
func Example() {
	config := qemu.Config{
		Arch:      qemu.X86_64,
		Accel:     qemu.AccelTCG,
		CPUs:      1,
		MemoryMiB: 512,
		Kernel:    "/boot/vmlinuz",
	}
	args, err := config.Args(qemu.Capabilities{
		Binary:   "/usr/bin/qemu-system-x86_64",
		Accels:   []qemu.Accel{qemu.AccelTCG},
		Machines: []string{"q35"},
		Devices:  []string{"virtio-rng-pci", "virtio-balloon-pci", "pvpanic-pci"},
		Options:  []string{"sandbox"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(qemu.ShellQuote(args[len(args)-14:]))
	// Output: -object memory-backend-memfd,id=mem0,size=512M,share=on,dump=off -kernel /boot/vmlinuz -append 'panic=-1 reboot=t' -object rng-builtin,id=rng0 -device virtio-rng-pci,rng=rng0 -device virtio-balloon-pci,id=balloon0,free-page-reporting=on,deflate-on-oom=on -device pvpanic-pci
}
