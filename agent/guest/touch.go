//go:build linux

package guest

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/sys/unix"
)

// Touch implements [server.Controller].
func (s *service) Touch(ctx context.Context, tag string, modified time.Time, names []agent.Touch) error {
	for _, n := range names {
		if !filepath.IsLocal(n.Path) {
			return &wire.ControlError{Code: wire.CodeBadRequest, Message: fmt.Sprintf("%q is no path within a share", n.Path)}
		}
	}
	s.mu.Lock()
	i := slices.IndexFunc(s.config.Mounts, func(m agent.Mount) bool { return m.Tag == tag })
	var share agent.Mount
	if i >= 0 {
		share = s.config.Mounts[i]
	}
	s.mu.Unlock()
	all, err := mountsNow()
	if err != nil {
		return err
	}
	target := shareTarget(s.image.User.Home, share.Target)
	mounts := all.of(tag)
	at := slices.IndexFunc(mounts, func(m mounted) bool { return m.target == target })
	if i < 0 || at < 0 {
		return fmt.Errorf("no share with the tag %q is mounted where it was", tag)
	}
	root, err := openMounted(mounts[at])
	if err != nil {
		return err
	}
	defer root.Close()
	if share.File != "" { // it is the share itself
		return touch(int(root.Fd()), modified)
	}
	if slices.ContainsFunc(names, func(n agent.Touch) bool { return n.Other }) {
		if err := noticeRemoved(ctx, root, mounts[at], names); err != nil {
			s.logger.Warn("programs may not learn that files which they watch were replaced", "err", err)
		}
	}
	for _, n := range names {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		touchBeneath(root, n.Path, modified)
	}
	return nil
}

// openMounted opens what is mounted (O_PATH). Users of the guest may own what leads there, so that it may be another file
// system by now: that is an error.
func openMounted(m mounted) (*os.File, error) {
	fd, err := unix.Open(m.target, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: m.target, Err: err}
	}
	root := os.NewFile(uintptr(fd), m.target)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || deviceName(unix.Major(st.Dev), unix.Minor(st.Dev)) != m.device {
		root.Close()
		return nil, fmt.Errorf("at %s there is not the share any more", m.target)
	}
	return root, nil
}

// touchBeneath touches a name. Whoever may write there, on this side or the host's, may have put a link on the way, or
// mounted something: that is not followed, and nothing is touched, as if there were nothing.
func touchBeneath(root *os.File, path string, modified time.Time) {
	fd, err := unix.Openat2(int(root.Fd()), path, &unix.OpenHow{
		Flags:   unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = touch(fd, modified)
}

// touch gives a file that time of modification. Before, the kernel learns what has become of it and forgets what it has
// kept of the content: with the answer to the change, it would take the new times for those that it knows.
func touch(fd int, modified time.Time) error {
	if _, err := current(fd); err != nil {
		return err
	}
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: modified.Unix(), Nsec: int64(modified.Nanosecond())}}
	return unix.UtimesNanoAt(fd, "", times, unix.AT_EMPTY_PATH)
}

// current asks the host for what is known of a file.
func current(fd int) (unix.Statx_t, error) {
	var st unix.Statx_t
	err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	return st, err
}

// noticeRemoved makes the kernel notice which files that somebody watches have no name any more, or soon will not, when
// the names that led to them are looked up. Then it tells who watched (IN_DELETE_SELF), as if they had been removed here.
//
// A name leads to what has replaced them: only those who watch them still have them, and the kernel says what that is.
func noticeRemoved(ctx context.Context, root *os.File, share mounted, names []agent.Touch) error {
	gone := map[string]bool{}
	for _, n := range names {
		if n.Other {
			gone[filepath.Join(share.target, n.Path)] = true
		}
	}
	handles, err := watchedHandles(share.device)
	if err != nil || len(handles) == 0 {
		return err
	}
	// The kernel takes no O_PATH here.
	fd, err := unix.Openat(int(root.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, h := range handles {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		file, err := unix.OpenByHandleAt(fd, h, unix.O_PATH|unix.O_CLOEXEC)
		if err != nil {
			continue // it is forgotten
		}
		// Of what is at another place, the host needs not be asked.
		if path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file)); err == nil && (gone[path] || !within(path, share.target)) {
			_, _ = current(file)
		}
		unix.Close(file)
	}
	return nil
}

// maxHandles bounds the files that are looked at because somebody watches them.
const maxHandles = 65536

// watchedHandles are the files of a device that processes watch by inotify, as proc_pid_fdinfo(5) tells.
func watchedHandles(device string) (list []unix.FileHandle, err error) {
	known := map[string]bool{}
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		files, _ := os.ReadDir(filepath.Join("/proc", p.Name(), "fd")) // it may have ended
		for _, f := range files {
			if kind, _ := os.Readlink(filepath.Join("/proc", p.Name(), "fd", f.Name())); kind != "anon_inode:inotify" {
				continue
			}
			info, err := os.Open(filepath.Join("/proc", p.Name(), "fdinfo", f.Name()))
			if err != nil {
				continue
			}
			for lines := bufio.NewScanner(info); lines.Scan() && len(list) < maxHandles; {
				on, kind, handle, ok := parseWatch(lines.Text())
				if !ok || on != device || known[string(handle)] {
					continue
				}
				known[string(handle)] = true
				list = append(list, unix.NewFileHandle(kind, handle))
			}
			info.Close()
		}
	}
	return list, nil
}

// parseWatch reads what of a watch of inotify is watched: a file handle, on a device.
func parseWatch(line string) (device string, kind int32, handle []byte, ok bool) {
	words := strings.Fields(line)
	if len(words) == 0 || words[0] != "inotify" {
		return "", 0, nil, false
	}
	fields := map[string]string{}
	for _, word := range words[1:] {
		name, value, _ := strings.Cut(word, ":")
		fields[name] = value
	}
	// As the kernel has it: 12 bits, and 20.
	dev, err := strconv.ParseUint(fields["sdev"], 16, 32)
	if err != nil {
		return "", 0, nil, false
	}
	number, err := strconv.ParseInt(fields["fhandle-type"], 16, 32)
	if err != nil {
		return "", 0, nil, false
	}
	handle, err = hex.DecodeString(fields["f_handle"])
	return deviceName(uint32(dev>>20), uint32(dev&(1<<20-1))), int32(number), handle, err == nil && len(handle) > 0
}
