package main

import (
	"fmt"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qemu"
)

// guestCondition tells scripts which architectures' guests they can boot:
// [x86_64] and [aarch64] hold where both QEMU and an image are there.
func guestCondition(dirs machine.Dirs) func(string) (bool, error) {
	return func(cond string) (bool, error) {
		arch := qemu.Arch(cond)
		if arch != qemu.X86_64 && arch != qemu.AArch64 {
			return false, fmt.Errorf("there is no condition %q", cond)
		}
		if _, err := qemu.Find(arch); err != nil {
			return false, nil
		}
		store, err := image.OpenStore(dirs.Images())
		if err != nil {
			return false, err
		}
		_, err = store.GetFor(cond+"-linux", "")
		return err == nil, nil
	}
}
