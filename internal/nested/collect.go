package nested

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Collect fills the directory tools with our programs, from the directory
// programs, and with this machine's QEMU and virtiofsd, their libraries and
// firmware, so that they run in any guest. More programs may be put into its bin.
func Collect(ctx context.Context, tools, programs string) error {
	bin := filepath.Join(tools, "bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"sandbox", "sandbox-agent"} {
		if err := copyFile(filepath.Join(programs, name), filepath.Join(bin, name)); err != nil {
			return err
		}
	}
	emulator, err := qemu.Find(qemu.HostArch())
	if err != nil {
		return err
	}
	daemon, err := virtiofs.Find(ctx)
	if err != nil {
		return err
	}
	for _, program := range []string{emulator, daemon.Path} {
		if err := bundle(ctx, tools, program); err != nil {
			return err
		}
	}
	return copyFirmware(filepath.Join(tools, "share", "qemu"))
}

// usualLoader is the dynamic loader in every distribution for x86-64.
const usualLoader = "/lib64/ld-linux-x86-64.so.2"

// bundle copies a program with its libraries to tools. It stays a program of its
// own, without a script around it, because that is what can be confined.
func bundle(ctx context.Context, tools, program string) error {
	program, err := filepath.EvalSymlinks(program)
	if err != nil {
		return err
	}
	libraries := filepath.Join(tools, "lib")
	if err := os.MkdirAll(libraries, 0o755); err != nil {
		return err
	}
	loader, err := loaderOf(program)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, loader, "--list", program).Output()
	if err != nil {
		return fmt.Errorf("listing the libraries of %s: %w", program, err)
	}
	for _, found := range regexp.MustCompile(`=> (/\S+) \(`).FindAllStringSubmatch(string(out), -1) {
		if err := copyFile(found[1], filepath.Join(libraries, filepath.Base(found[1]))); err != nil {
			return err
		}
	}
	copied := filepath.Join(tools, "bin", filepath.Base(program))
	if err := copyFile(program, copied); err != nil || loader == usualLoader {
		return err
	}
	// It is another distribution's with a loader of its own, which no guest has.
	patch := exec.CommandContext(ctx, "patchelf", "--set-interpreter", usualLoader, "--remove-rpath", copied)
	if out, err := patch.CombinedOutput(); err != nil {
		return fmt.Errorf("giving %s the guest's loader: %w\n%s(make setup-test installs patchelf)", copied, err, out)
	}
	return nil
}

// loaderOf is the dynamic loader that a program asks for.
func loaderOf(program string) (string, error) {
	f, err := elf.Open(program)
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name, err := io.ReadAll(p.Open())
			return strings.TrimRight(string(name), "\x00"), err
		}
	}
	return "", fmt.Errorf("%s is not linked dynamically", program)
}

// copyFirmware copies what q35 and microvm machines without option ROMs read.
func copyFirmware(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"bios-256k.bin", "bios-microvm.bin", "qboot.rom", "kvmvapic.bin", "linuxboot_dma.bin", "multiboot_dma.bin", "pvh.bin"} {
		for _, from := range []string{"/usr/share/qemu", "/usr/share/seabios"} {
			err := copyFile(filepath.Join(from, name), filepath.Join(dir, name))
			if err == nil {
				break
			}
			if !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
