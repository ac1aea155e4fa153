package gate

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// replacement is a rename onto a name of which the content decides. What was judged must be what is there afterwards,
// but the guest can have the file open, have another name for it, or share the directory with another guest that has. So
// a new file, which nobody else has ever had, gets the judged content and then the name, and the guest's file goes. For
// the guest this looks like a rename; that the number of the inode is another one, it finds out within a second.
type replacement struct {
	gate     *Gate
	from, to place
	flags    uint

	mode  uint32
	data  []byte
	asked bool // for the content
	err   error
}

// content reads what gets the name.
func (r *replacement) content() ([]byte, error) {
	r.asked = true
	r.data, r.mode, r.err = r.gate.contentAndMode(r.from)
	return r.data, r.err
}

// finish does the rename, if its content was judged.
func (r *replacement) finish() (done bool, err error) {
	switch {
	case !r.asked:
		return false, nil
	case r.err != nil:
		return false, r.err
	case len(r.data) > rules.MaxContent: // what comes after that was not asked for, and so does not decide
		return false, nil
	}
	return true, r.replace()
}

func (r *replacement) replace() error {
	from, err := r.gate.hold(r.from)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := r.gate.hold(r.to)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return r.gate.asOwner(func() error { return r.move(from, to) })
}

// move takes the directories.
func (r *replacement) move(from, to int) error {
	draft := DraftPrefix + rand.Text()
	fd, err := unix.Openat(to, draft, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), draft)
	_, err = f.Write(r.data)
	err = errors.Join(err, unix.Fchmod(fd, r.mode), f.Close())
	if err == nil {
		err = unix.Renameat2(to, draft, to, r.to.name, r.flags)
	}
	if err != nil {
		_ = unix.Unlinkat(to, draft, 0)
		return err
	}
	// Whatever has that name now, the guest may do that.
	return unix.Unlinkat(from, r.from.name, 0)
}

// wantsContent tells whether the content of a file decides which has the path, or had it.
func (g *Gate) wantsContent(path string) bool {
	had, ok := strings.CutSuffix(path, deleted)
	return g.judge.WantsContent(path) || ok && g.judge.WantsContent(had)
}

// content reads a regular file.
func (g *Gate) content(p place) ([]byte, error) {
	data, _, err := g.contentAndMode(p)
	return data, err
}

func (g *Gate) contentAndMode(p place) (data []byte, mode uint32, err error) {
	at, err := g.hold(p)
	if err != nil {
		return nil, 0, err
	}
	defer unix.Close(at)
	err = g.asOwner(func() error {
		const flags = unix.O_RDONLY | unix.O_NONBLOCK | unix.O_CLOEXEC
		fd := -1
		if p.name == "" {
			fd, err = unix.Open(fmt.Sprintf("/proc/self/fd/%d", at), flags, 0)
		} else {
			fd, err = unix.Openat(at, p.name, flags|unix.O_NOFOLLOW, 0)
		}
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), p.path)
		defer f.Close()
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if typeOf(st.Mode) != 0 {
			return unix.EACCES // since it was looked at
		}
		mode = st.Mode & 0o777
		data, err = io.ReadAll(io.LimitReader(f, rules.MaxContent+1))
		return err
	})
	return data, mode, err
}

// asOwner runs f with the power over files that the user of the host has to whom the guest's files belong. The thread is
// the gate's own.
func (g *Gate) asOwner(f func() error) (err error) {
	if os.Geteuid() != 0 || g.owner.UID == 0 {
		return f()
	}
	groups, err := unix.Getgroups()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, become(0, os.Getegid(), groups)) }()
	if err := become(g.owner.UID, g.owner.GID, g.owner.Groups); err != nil {
		return err
	}
	return f()
}

// become changes this thread only, and what it may do with files, not with processes.
func become(uid, gid int, groups []int) error {
	list := make([]uint32, len(groups), len(groups)+1)
	for i, group := range groups {
		list[i] = uint32(group)
	}
	_, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(list)), uintptr(unsafe.Pointer(unsafe.SliceData(list))), 0)
	if e != 0 {
		return fmt.Errorf("taking the groups of the files' owner: %w", e)
	}
	for _, set := range []struct {
		call uintptr
		id   int
	}{{unix.SYS_SETFSGID, gid}, {unix.SYS_SETFSUID, uid}} {
		// They do not tell whether they have failed, but what was before.
		_, _, _ = unix.RawSyscall(set.call, uintptr(set.id), 0, 0)
		if now, _, _ := unix.RawSyscall(set.call, ^uintptr(0), 0, 0); int(now) != set.id {
			return fmt.Errorf("becoming user %d, group %d, for the files' sake: %w", uid, gid, unix.EPERM)
		}
	}
	return nil
}
