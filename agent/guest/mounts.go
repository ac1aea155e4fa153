//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"golang.org/x/sys/unix"
)

const (
	// newRoot is where the guest's root is put together before the switch.
	newRoot = "/newroot"

	// shareMount is where a share itself is mounted while its overlay is made, or its file is mounted elsewhere.
	// Afterwards nobody in the guest has a path to it.
	shareMount = "/run/sandbox-agent.share"

	// deviceTimeout bounds the wait for the store's device. Devices are there
	// before the modules have been loaded or never; the rest is patience with
	// an emulated guest on a busy host.
	deviceTimeout = 30 * time.Second
)

// mount is one call of mount(2), with its mount point made first.
type mount struct {
	source, target, kind string
	flags                uintptr
	options              string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("cannot make the mount point %s: %w", m.target, unwrapPath(err))
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.options); err != nil {
		return fmt.Errorf("cannot mount %s (%s) on %s: %w", m.source, m.kind, m.target, err)
	}
	return nil
}

func mountAll(mounts []mount) error {
	for _, m := range mounts {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

// mountRoot mounts the store, an overlay above it, and the kernel's file
// systems inside. The overlay is in memory, or on the disk with that serial
// number unless it is empty; then the disk is returned.
func mountRoot(ctx context.Context, store boot.Store, serial string, logger *slog.Logger) (d *disk, err error) {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	if err := waitForPath(ctx, store.Device); err != nil {
		return nil, fmt.Errorf("the store's device %s did not appear within %v (is the drive attached, and its driver among the initrd's modules?): %w",
			store.Device, deviceTimeout, err)
	}
	if err := (mount{store.Device, lowerDir, store.Format, unix.MS_RDONLY, ""}).do(); err != nil {
		return nil, err
	}
	if serial == "" {
		err = mountMemory()
	} else {
		if d, err = openDisk(ctx, serial, upperDir, logger); err != nil {
			return nil, err
		}
		err = d.mount()
	}
	if err != nil {
		return nil, err
	}
	// Directories of their own: beside them are /tmp, lost+found and what is written to copy-on-write shares.
	for _, dir := range []string{upperDir + "/data", upperDir + "/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("cannot prepare the overlay: %w", err)
		}
	}
	err = mountAll([]mount{
		{"overlay", newRoot, "overlay", 0, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work"},
		{"/proc", newRoot + "/proc", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/sys", newRoot + "/sys", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/dev", newRoot + "/dev", "", unix.MS_BIND | unix.MS_REC, ""},
		{"/run", newRoot + "/run", "", unix.MS_BIND | unix.MS_REC, ""},
	})
	if err == nil {
		err = freshTmp(newRoot+"/tmp", logger)
	}
	return d, err
}

// mountMemory mounts a file system in memory on upperDir.
func mountMemory() error {
	memory, err := totalMemory()
	if err != nil {
		return err
	}
	return mount{"tmpfs", upperDir, "tmpfs", 0, memory.root()}.do()
}

// mountShares mounts what the host shares, in the given order, under root.
func mountShares(root string, user boot.User, mounts []agent.Mount, ws *workspaces) error {
	for _, share := range mounts {
		share.Target = shareTarget(user.Home, share.Target)
		point, err := sharePoint(root, user, share)
		if err != nil {
			return fmt.Errorf("cannot make the mount point %s of the share %q: %w", share.Target, share.Tag, err)
		}
		err = mountShareOn(point, share, ws)
		point.Close()
		if err != nil {
			return explainMount(share, err)
		}
	}
	return nil
}

// mountShareOn mounts a share on its mount point. Without a device that has its tag, the error is EINVAL.
func mountShareOn(point *os.File, share agent.Mount, ws *workspaces) error {
	if share.CopyOnWrite {
		return ws.mount(share, point, func(at string) error { return mountShare(share, at) })
	}
	return mountShare(share, descriptorPath(point))
}

func explainMount(share agent.Mount, err error) error {
	if errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("cannot mount the share %q on %s: the guest has no virtiofs device with this tag", share.Tag, share.Target)
	}
	return fmt.Errorf("cannot mount the share %q on %s: %w", share.Tag, share.Target, err)
}

// mountShare mounts a share as the host serves it, or its file. Without a device that has its tag, the error is EINVAL.
func mountShare(share agent.Mount, at string) error {
	if share.File != "" {
		return mountOnlyFile(share, at)
	}
	var flags uintptr = unix.MS_NOSUID | unix.MS_NODEV
	if share.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	return unix.Mount(share.Tag, at, "virtiofs", flags, "")
}

// mountOnlyFile mounts the file of a share. The directory that the host serves has no other and is nowhere to be seen.
func mountOnlyFile(share agent.Mount, at string) (err error) {
	if err := os.MkdirAll(shareMount, 0o700); err != nil {
		return unwrapPath(err)
	}
	name := share.File
	share.File = ""
	if err := mountShare(share, shareMount); err != nil {
		return err
	}
	// What is mounted of it stays.
	defer func() {
		err = errors.Join(err, unix.Unmount(shareMount, unix.MNT_DETACH), os.Remove(shareMount))
	}()
	dir, err := hostdir.Open(shareMount)
	if err != nil {
		return err
	}
	defer dir.Close()
	file, err := openRegular(dir.File(), name)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := unix.Mount(descriptorPath(file), at, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting the file: %v", err) // and not whatever the same number means of a share
	}
	return nil
}

// openRegular opens a file of the directory to be mounted, or to be mounted on, if it is a regular one.
func openRegular(dir *os.File, name string) (*os.File, error) {
	path := filepath.Join(dir.Name(), name)
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", path)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// descriptorPath leads to what is open, whatever becomes of its own path.
func descriptorPath(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// shareTarget is the absolute path of a share's target.
func shareTarget(home, target string) string {
	if filepath.IsAbs(target) {
		return filepath.Clean(target)
	}
	return filepath.Join(home, target)
}

// sharePoint makes and opens the mount point of a share, whose target is absolute, below root.
func sharePoint(root string, user boot.User, share agent.Mount) (*os.File, error) {
	if share.File != "" {
		return filePoint(root, share.Target, user)
	}
	return directoryPoint(root, share.Target, user)
}

// directoryPoint makes and opens the directory at the path below root, to be mounted on. What it makes inside the home
// belongs to the user, who would otherwise find directories there that only root can write to.
//
// Programs of the guest may run already, or have run at an earlier boot, so that it follows no link: one of the user's
// would put what root mounts where no user may.
func directoryPoint(root, path string, user boot.User) (*os.File, error) {
	dir, err := openPoint(root, path, user)
	if link, ok := errors.AsType[*hostdir.LinkError](err); ok {
		at := filepath.Join("/", strings.TrimPrefix(link.Path, root))
		return nil, fmt.Errorf("%s is a symbolic link, to %q, which is not followed: put a directory in its place", at, link.Target)
	}
	if err != nil {
		return nil, unwrapPath(err)
	}
	return dir.File(), nil
}

func openPoint(root, path string, user boot.User) (*hostdir.Dir, error) {
	dir, err := hostdir.Open(root)
	if err != nil {
		return nil, err
	}
	at := "/"
	for part := range strings.SplitSeq(strings.Trim(path, "/"), "/") {
		if part == "" { // the root itself
			break
		}
		at = filepath.Join(at, part)
		inner, err := dir.Beneath(part)
		if errors.Is(err, os.ErrNotExist) {
			fd := int(dir.File().Fd())
			err = unix.Mkdirat(fd, part, 0o755)
			if err == nil && within(at, user.Home) {
				err = giveTo(fd, part, user)
			}
			if err == nil || errors.Is(err, unix.EEXIST) {
				inner, err = dir.Beneath(part)
			}
		}
		dir.Close()
		if err != nil {
			return nil, err
		}
		dir = inner
	}
	return dir, nil
}

// filePoint makes and opens the file at the path below root, in the same way.
func filePoint(root, path string, user boot.User) (*os.File, error) {
	dir, err := directoryPoint(root, filepath.Dir(path), user)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := filepath.Base(path)
	file, err := openRegular(dir, name)
	if !errors.Is(err, os.ErrNotExist) {
		return file, err
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	made := os.NewFile(uintptr(fd), path)
	defer made.Close()
	if within(path, user.Home) {
		if err := made.Chown(user.UID, user.GID); err != nil {
			return nil, err
		}
	}
	return openRegular(dir, name)
}

// giveTo makes the user own a new directory of the one that is open as dir. On virtiofs the host may have seen to that,
// and need not allow the change.
func giveTo(dir int, name string, user boot.User) error {
	var stat unix.Stat_t
	if err := unix.Fstatat(dir, name, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if int(stat.Uid) == user.UID && int(stat.Gid) == user.GID {
		return nil
	}
	return unix.Fchownat(dir, name, user.UID, user.GID, unix.AT_SYMLINK_NOFOLLOW)
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// unwrapPath leaves out the path of an error that names it another time.
func unwrapPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
