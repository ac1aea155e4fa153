package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
)

// oldQEMU is where make setup-test puts Debian 12's own QEMU, the oldest that
// sandboxes run in.
const oldQEMU = "/usr/local/lib/sandbox/qemu-7.2/usr/bin"

// guestCondition tells scripts which architectures' guests they can boot:
// [x86_64] and [aarch64] hold where both QEMU and an image are there, and
// [old-qemu] where oldQEMU is.
func guestCondition(dirs layout.Dirs) func(string) (bool, error) {
	return func(cond string) (bool, error) {
		if cond == "root" {
			return os.Geteuid() == 0, nil
		}
		if cond == "boto3" {
			return exec.Command("python3", "-c", "import boto3").Run() == nil, nil
		}
		if cond == "old-qemu" {
			_, err := exec.LookPath(filepath.Join(oldQEMU, "qemu-system-"+string(qemu.HostArch())))
			return err == nil, nil
		}
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
