//go:build linux

// Command plaininit is the first process of the guests that internal/bench
// compares ours with. It does what the smallest of initial RAM disks does,
// without an agent: it mounts the image's store with a layer in memory above
// it, undoes what the image's recipe tuned, and makes way for systemd.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const newRoot = "/newroot"

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "plaininit runs in the guests of internal/bench, as their first process")
		os.Exit(2)
	}
	err := boot()
	fmt.Fprintf(os.Stderr, "plaininit: the guest cannot start: %v\n", err)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// boot returns only if it fails.
func boot() error {
	if err := mountKernel(); err != nil {
		return err
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	if err := mountStore(); err != nil {
		return err
	}
	if err := untune(newRoot); err != nil {
		return err
	}
	if err := lay("/files", newRoot); err != nil {
		return fmt.Errorf("laying the benchmark's files over the store: %w", err)
	}
	return switchRoot("/sbin/init")
}

func mount(source, target, kind string, flags uintptr, options string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, target, kind, flags, options); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mounting %s on %s: %w", source, target, err)
	}
	return nil
}

func mountKernel() error {
	return errors.Join(
		mount("proc", "/proc", "proc", 0, ""), mount("sysfs", "/sys", "sysfs", 0, ""),
		mount("devtmpfs", "/dev", "devtmpfs", 0, ""), mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"))
}

// loadModules loads the modules in the order that the image's own agent uses.
func loadModules(dir string) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, fs.ErrExist) {
			fmt.Fprintf(os.Stderr, "plaininit: the module %s: %v\n", name, err)
		}
	}
	return nil
}

func mountStore() error {
	if err := errors.Join(
		mount("/dev/vda", "/lower", "erofs", unix.MS_RDONLY, ""),
		mount("tmpfs", "/upper", "tmpfs", 0, "mode=0755")); err != nil {
		return err
	}
	for _, dir := range []string{"/upper/data", "/upper/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return mount("overlay", newRoot, "overlay", 0, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work")
}

// lay copies the files and links of a tree over another, with their modes: sshd
// refuses keys that others can read.
func lay(from, to string) error {
	return filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(to, strings.TrimPrefix(name, from))
		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o755)
		case d.Type() == fs.ModeSymlink:
			link, err := os.Readlink(name)
			return errors.Join(err, os.Symlink(link, target))
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(name)
		return errors.Join(err, os.WriteFile(target, data, info.Mode().Perm()))
	})
}

func switchRoot(init string) error {
	for _, dir := range []string{"/dev", "/proc", "/sys", "/run"} {
		if err := mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := errors.Join(unix.Chdir(newRoot), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/")); err != nil {
		return fmt.Errorf("changing to the new root: %w", err)
	}
	return fmt.Errorf("executing %s: %w", init, unix.Exec(init, []string{init}, []string{"HOME=/", "TERM=linux"}))
}
