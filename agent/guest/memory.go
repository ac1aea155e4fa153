//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/server"
)

// What programs can put into the guest's memory without owning it, in
// hundredths of it. No program's end gives it back, so together it must leave
// room for those that are to clean up, and for the shutdown.
const (
	rootShare        = 50 // what is written outside home and shares, /tmp included
	sharedShare      = 10 // /dev/shm
	runShare         = 5  // /run
	runtimeShare     = 5  // /run/user/UID, which is the user's to fill
	sharedSystemV    = 5  // shmget(2), by the sysctl kernel.shmall
	lockBytes        = 5 << 20
	deviceNodesBytes = 4 << 20 // /dev: files that are there by mistake; both as systemd has them
)

// Each file takes a kibibyte or two of the kernel's memory besides what it
// holds. The root has one for each so many bytes of the guest's memory, which
// is one for two of its pages; the others are for few files.
const (
	bytesPerRootInode  = 16 << 10
	bytesPerOtherInode = 64 << 10
)

// memory is the size of the guest's memory in bytes.
type memory uint64

func totalMemory() (memory, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0, fmt.Errorf("cannot learn how much memory there is: %w", err)
	}
	return memory(uint64(info.Totalram) * uint64(info.Unit)), nil
}

// root is the options of tmpfs for what is written to the root.
func (m memory) root() string {
	return fmt.Sprintf("mode=0755,size=%d%%,nr_inodes=%d", rootShare, m/bytesPerRootInode)
}

// limits is the options of another tmpfs that may take a share of the memory.
func (m memory) limits(percent int) string {
	return fmt.Sprintf("size=%d%%,nr_inodes=%d", percent, m/bytesPerOtherInode)
}

// kernelMounts are the file systems that every program expects. They are
// mounted once, before anything else, and taken along into the new root. /dev
// may have been mounted by the kernel.
func (m memory) kernelMounts() []mount {
	return []mount{
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, fmt.Sprintf("mode=0755,size=%d,nr_inodes=64k", deviceNodesBytes)},
		terminals(ttyGroup),
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777," + m.limits(sharedShare)},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755," + m.limits(runShare)},
		// Everybody may write there, and init must find room in /run.
		{"tmpfs", "/run/lock", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, fmt.Sprintf("mode=1777,size=%d,nr_inodes=4k", lockBytes)},
	}
}

// ttyGroup is the number of the group tty in most systems.
const ttyGroup = 5

// terminals is the file system of terminals, which belong to the group of that
// number. Without one, a terminal would belong to its user's group and be open
// to it.
func terminals(gid int) mount {
	return mount{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, fmt.Sprintf("gid=%d,mode=620,ptmxmode=666", gid)}
}

// nameTerminals gives terminals to the group tty of a new root, if it has
// another number there, such as 3 in NixOS.
func nameTerminals(root string) error {
	groups, err := readIn(root, "/etc/group")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	gid, ok := server.FindGroup(string(groups), "tty")
	if !ok || gid == ttyGroup {
		return nil
	}
	m := terminals(gid)
	return unix.Mount(m.source, filepath.Join(root, m.target), m.kind, m.flags|unix.MS_REMOUNT, m.options)
}

// setLimits sets the kernel's limits, under /proc/sys: those of desktop
// distributions, where programs are tried out, and the one of memory that no
// program owns. What an image says in sysctl.d(5) comes later, and wins.
func (m memory) setLimits(sys string) error {
	for _, limit := range []struct {
		name string
		// The kernel's own is 8192 with little memory; an editor's watcher has
		// one for each directory of a project.
		least uint64
	}{
		{"fs/inotify/max_user_watches", 524288},
		{"fs/inotify/max_user_instances", 1024},
		{"vm/max_map_count", 1048576}, // databases and JVMs
	} {
		if err := raise(filepath.Join(sys, limit.name), limit.least); err != nil {
			return err
		}
	}
	pages := uint64(m) / 100 * sharedSystemV / uint64(os.Getpagesize())
	return os.WriteFile(filepath.Join(sys, "kernel/shmall"), strconv.AppendUint(nil, pages, 10), 0o644)
}

// raise writes a number to a file that holds a smaller one.
func raise(file string, least uint64) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if now, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && now >= least {
		return nil
	}
	return os.WriteFile(file, strconv.AppendUint(nil, least, 10), 0o644)
}

// mountRuntimeDir makes the user's runtime directory, which is to end up with
// everything else in it when the guest does, under root.
func (m memory) mountRuntimeDir(root string, user boot.User) error {
	dir := filepath.Join(root, "/run/user", strconv.Itoa(user.UID))
	mounted, err := isMountPoint(dir)
	if err != nil || mounted {
		return err // it is that of an earlier life
	}
	options := fmt.Sprintf("mode=0700,uid=%d,gid=%d,%s", user.UID, user.GID, m.limits(runtimeShare))
	return mount{"tmpfs", dir, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, options}.do()
}

// isMountPoint reports whether a directory, which need not exist, has another
// file system than its parent.
func isMountPoint(dir string) (bool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return false, err
	}
	var own, parent unix.Stat_t
	if err := unix.Stat(dir, &own); err != nil {
		return false, err
	}
	if err := unix.Stat(filepath.Dir(dir), &parent); err != nil {
		return false, err
	}
	return own.Dev != parent.Dev, nil
}
