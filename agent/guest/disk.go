//go:build linux

package guest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// lowerDir is where the store is mounted, and upperDir what lies over it.
	lowerDir = "/lower"
	upperDir = "/upper"

	// diskFormat is a file system that every kernel has, with a journal.
	diskFormat = "ext4"

	// diskLabel is how a user recognises the file system from outside.
	diskLabel = "sandbox"
)

// disk is one of the sandbox's writable disks.
type disk struct {
	device string
	at     string   // where it is mounted
	top    *os.File // the root of its file system, once it is mounted
	logger *slog.Logger
}

// openDisk waits for the drive of that serial number. Serial numbers are in
// sysfs, which tells nobody when something appears, but /dev does.
func openDisk(ctx context.Context, serial, at string, logger *slog.Logger) (*disk, error) {
	d := &disk{at: at, logger: logger}
	err := watch(ctx, "/dev/vda", func() bool {
		name := findSerial("/sys/block", serial)
		d.device = "/dev/" + name
		return name != ""
	})
	if err != nil {
		return nil, fmt.Errorf("the disk with the serial number %q did not appear within %v: %w", serial, deviceTimeout, err)
	}
	return d, nil
}

// findSerial returns the name of the block device in blocks (/sys/block) that
// has the serial number, or "".
func findSerial(blocks, serial string) string {
	// The pattern is a valid one, and nothing else can fail.
	found, _ := filepath.Glob(filepath.Join(blocks, "*", "serial"))
	for _, path := range found {
		if text, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(text)) == serial {
			return filepath.Base(filepath.Dir(path))
		}
	}
	return ""
}

// mount mounts the disk, after making a file system on it if it is
// new, or repairing the one that is there if it needs that. The tools are those
// of the store, which is mounted on lowerDir.
func (d *disk) mount() error {
	head, err := readHead(d.device)
	if err != nil {
		return fmt.Errorf("cannot read the disk: %w", err)
	}
	switch judge(head) {
	case diskBlank:
		if err := d.format(); err != nil {
			return err
		}
	case diskForeign:
		return fmt.Errorf("the disk %s holds something else than our file system; sandbox reset gives the sandbox an empty one", d.device)
	case diskDamaged:
		if err := d.repair(); err != nil {
			return err
		}
	}
	// The kernel replays the journal of a guest that did not end in order.
	m := mount{d.device, d.at, diskFormat, 0, "discard,errors=remount-ro"}
	err = m.do()
	// The kernel's words for a structure that makes no sense.
	if errors.Is(err, unix.EUCLEAN) || errors.Is(err, unix.EBADMSG) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO) {
		if err := d.repair(); err != nil {
			return err
		}
		err = m.do()
	}
	if err != nil {
		return err
	}
	// Stays open: from the guest's own root there is no way to it.
	if d.top, err = os.Open(d.at); err != nil {
		return err
	}
	if err := d.grow(); err != nil { // smaller than it should be, it is still good
		d.logger.Warn("the disk stays as small as it was", "err", err)
	}
	return nil
}

// format makes the file system. The disk is known to read as zeroes, so no
// inode table and no journal needs to be written, now or later: a new disk
// takes next to nothing on the host. A guest that ends during this finds the
// disk blank at its next start, because mke2fs writes the superblock last.
func (d *disk) format() error {
	d.logger.Info("making a file system on the disk", "device", d.device)
	code, err := d.tool("mkfs."+diskFormat, "-q", "-F", "-m", "0", "-L", diskLabel,
		"-E", "nodiscard,assume_storage_prezeroed=1", d.device)
	if err == nil && code != 0 {
		err = fmt.Errorf("it ended with status %d (its words are above)", code)
	}
	if err != nil {
		return fmt.Errorf("cannot make a file system on the disk: %w", err)
	}
	return nil
}

// repair runs e2fsck, first with repairs that lose nothing, then with all.
func (d *disk) repair() error {
	d.logger.Warn("the file system of the disk is damaged and is being repaired", "device", d.device)
	for _, mode := range []string{"-p", "-y"} {
		code, err := d.tool("e2fsck", "-f", mode, d.device)
		if err != nil {
			return fmt.Errorf("cannot repair the disk: %w", err)
		}
		// Bits 0 and 1 say that errors were corrected, the next that some
		// were left (e2fsck(8)).
		if code < 4 {
			d.logger.Warn("the file system of the disk was repaired", "device", d.device)
			return nil
		}
	}
	return fmt.Errorf("the file system on %s cannot be repaired (e2fsck's words are above); sandbox reset gives the sandbox an empty disk and keeps its home", d.device)
}

// tool runs a program of the store, with its output on the console.
func (d *disk) tool(name string, args ...string) (code int, err error) {
	// The program opens the device by name, and what is in the store's /dev is
	// an empty directory.
	dev := mount{"/dev", lowerDir + "/dev", "", unix.MS_BIND, ""}
	if err := dev.do(); err != nil {
		return 0, err
	}
	defer func() {
		if err := unix.Unmount(dev.target, unix.MNT_DETACH); err != nil {
			d.logger.Warn("the store's /dev stays mounted", "err", err)
		}
	}()
	path := ""
	for _, dir := range []string{"/usr/sbin/", "/sbin/", "/usr/bin/"} {
		if existsIn(lowerDir, dir+name) {
			path = dir + name
			break
		}
	}
	if path == "" {
		return 0, fmt.Errorf("the image has no %s: a disk needs an image with the package e2fsprogs", name)
	}
	cmd := &exec.Cmd{
		Path: path, Args: append([]string{name}, args...), Dir: "/",
		Stdout: os.Stderr, Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{Chroot: lowerDir},
	}
	err = cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	return 0, nil
}

// diskCondition is what the first bytes of a disk say about it.
type diskCondition int

const (
	diskSound   diskCondition = iota // has our file system
	diskBlank                        // was never written to, or not to the end
	diskDamaged                      // has our file system, which has noticed errors
	diskForeign                      // has something else
)

// headSize is the part of a disk that ends with ext4's superblock.
const headSize = 4096

func readHead(device string) ([]byte, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, headSize)
	_, err = io.ReadFull(f, head)
	return head, err
}

// judge looks at the superblock, which begins at byte 1024 (the kernel's
// Documentation/filesystems/ext4/super.rst).
func judge(head []byte) diskCondition {
	const (
		magicOffset = 1024 + 0x38
		stateOffset = 1024 + 0x3a
		magic       = 0xef53
		hasErrors   = 2
	)
	switch {
	case binary.LittleEndian.Uint16(head[magicOffset:]) == magic:
		if binary.LittleEndian.Uint16(head[stateOffset:])&hasErrors != 0 {
			return diskDamaged
		}
		return diskSound
	case bytes.Equal(head, make([]byte, len(head))):
		return diskBlank
	}
	return diskForeign
}

// oldTmp begins the names of what earlier boots left in /tmp.
const oldTmp = "old-tmp-"

// freshTmp mounts an empty directory of what is on upperDir on target, for
// /tmp: so what is put there and what is written to the root have one limit.
// It belongs to one boot, and what earlier ones left on a disk is removed in
// the background. systemd would hide what early commands have put into /tmp if
// it were the first to mount it.
func freshTmp(target string, logger *slog.Logger) error {
	upper, err := os.OpenRoot(upperDir) // found again from any root
	if err != nil {
		return err
	}
	err = upper.Rename("tmp", oldTmp+rand.Text())
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = upper.Mkdir("tmp", 0o755)
	}
	if errors.Is(err, unix.ENOSPC) {
		// What is in the way is on the disk: it is worth the time.
		err = errors.Join(removeOldTmp(upper), upper.Mkdir("tmp", 0o755))
	}
	if err == nil {
		err = upper.Chmod("tmp", 0o777|os.ModeSticky)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("cannot empty /tmp: %w", err), upper.Close())
	}
	go func() {
		defer upper.Close()
		if err := removeOldTmp(upper); err != nil {
			logger.Warn("files that earlier boots left in /tmp take space on the disk", "err", err)
		}
	}()
	// A bind mount takes its flags only in a second call (mount(2)).
	return mountAll([]mount{
		{upperDir + "/tmp", target, "", unix.MS_BIND, ""},
		{"", target, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV, ""},
	})
}

func removeOldTmp(upper *os.Root) error {
	dir, err := upper.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	for _, name := range names {
		if strings.HasPrefix(name, oldTmp) {
			err = errors.Join(err, upper.RemoveAll(name))
		}
	}
	return err
}
