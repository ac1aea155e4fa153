package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The bits of PR_SET_SECUREBITS (linux/securebits.h): user 0 is nobody special, and all that can be locked is.
const secureBits = 1<<0 | 1<<1 | // SECBIT_NOROOT
	1<<2 | 1<<3 | // SECBIT_NO_SETUID_FIXUP
	1<<5 | // SECBIT_KEEP_CAPS_LOCKED
	1<<6 | 1<<7 // SECBIT_NO_CAP_AMBIENT_RAISE

// dropPrivileges leaves this thread without any capability, and without a way to gain one, and as the user that
// the program has.
func (j job) dropPrivileges(r *Report) error {
	if err := dropBounds(); err != nil {
		return err
	}
	switch u := j.Credential; {
	case u != nil:
		groups := make([]int, len(u.Groups))
		for i, g := range u.Groups {
			groups[i] = int(g)
		}
		if err := errors.Join(syscall.Setgroups(groups), syscall.Setresgid(int(u.ID), int(u.ID), int(u.ID)), syscall.Setresuid(int(u.ID), int(u.ID), int(u.ID))); err != nil {
			return fmt.Errorf("becoming the user %d: %w", u.ID, err)
		}
	case j.Room.User == nil && !j.Room.UserSpace && os.Geteuid() == 0:
		r.lacks(WallUser, errors.New("there is none but root here"))
	}
	if u := j.Room.User; u != nil {
		r.has(WallUser, fmt.Sprintf("%d, who owns nothing", u.ID))
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

// dropBounds needs a capability itself. Without it, an ordinary user gains none by what is dropped, because of
// no_new_privs.
func dropBounds() error {
	err := unix.Prctl(unix.PR_SET_SECUREBITS, secureBits, 0, 0, 0)
	for c := uintptr(0); err == nil; c++ {
		err = unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
	}
	// EINVAL: the kernel has no capability of that number, so the last one is gone.
	if errors.Is(err, unix.EINVAL) || (errors.Is(err, unix.EPERM) && os.Geteuid() != 0) {
		return nil
	}
	return fmt.Errorf("dropping capabilities: %w", err)
}
