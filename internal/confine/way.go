package confine

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// way is how a program gets surroundings of its own.
type way struct {
	name       string
	namespaces bool // with a root directory of its own
	userspace  bool // among the namespaces is one of users
}

// ways returns those to be tried, the safest first.
func (s Spec) ways() []way {
	if s.Room == nil {
		return []way{{}}
	}
	all := []way{{name: "a user namespace", namespaces: true, userspace: true}}
	if os.Geteuid() == 0 {
		// Where user namespaces are closed, root may still make the others.
		all = append(all, way{name: "namespaces", namespaces: true})
	}
	return append(all, way{})
}

// closedError says that this machine does not offer a way.
type closedError struct{ err error }

func (e *closedError) Error() string { return e.err.Error() }
func (e *closedError) Unwrap() error { return e.err }

// refused makes a closedError of what says that this machine does not offer something.
func refused(what string, err error) error {
	// EPERM, EACCES: forbidden by the administrator, a container or AppArmor; ENOSPC, EUSERS: the limit of
	// namespaces is reached, or 0; EINVAL, ENOSYS, ENODEV: the kernel has none.
	for _, e := range []syscall.Errno{syscall.EPERM, syscall.EACCES, syscall.EUSERS, syscall.EINVAL, syscall.ENOSYS, syscall.ENODEV} {
		if errors.Is(err, e) {
			return &closedError{fmt.Errorf("%s: %w", what, err)}
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		return &closedError{fmt.Errorf("%s: no more are allowed (sysctl user.max_user_namespaces and its like)", what)}
	}
	return fmt.Errorf("%s: %w", what, err)
}

// WeakError says that nothing can keep a program that was taken over from the user's files.
type WeakError struct{}

// Error says what to do.
func (*WeakError) Error() string {
	return "this machine offers nothing that could keep a program from your files whose guest has taken it over: neither user namespaces nor Landlock. " + Remedy
}

// Remedy is what to do about walls that this machine does not offer.
const Remedy = "allow user namespaces (sysctl user.max_user_namespaces=10000, on Ubuntu also kernel.apparmor_restrict_unprivileged_userns=0; " +
	"in a container, they are for its host to allow), and boot a kernel with Landlock (5.13 or newer, with landlock in lsm= on its command line)"

// enough returns a *WeakError if the program could do with the user's files what the user can. One wall is
// enough: a root directory without them, Landlock, or a user to whom they do not belong.
func (w way) enough(r *Room, landlock int) error {
	if w.namespaces || landlock > 0 || r.User != nil || r.AllowWeak {
		return nil
	}
	return &WeakError{}
}

// landlockVersion returns the version of Landlock's interface that the kernel has, or 0.
func landlockVersion() int {
	v, err := ll.LandlockGetABIVersion()
	if err != nil {
		return 0
	}
	return v
}

// attr is how the launcher is started.
func (w way) attr(s Spec) *syscall.SysProcAttr {
	if s.Room == nil {
		if s.Attr != nil {
			return s.Attr
		}
		return &syscall.SysProcAttr{}
	}
	attr := &syscall.SysProcAttr{}
	if w.namespaces {
		attr.Cloneflags = syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
		if !s.Room.Network {
			attr.Cloneflags |= syscall.CLONE_NEWNET
		}
	}
	if w.userspace {
		attr.Cloneflags |= syscall.CLONE_NEWUSER
		attr.UidMappings, attr.GidMappings, attr.Credential = s.Room.User.mappings()
		attr.GidMappingsEnableSetgroups = !attr.Credential.NoSetGroups
	}
	return attr
}

// mappings make a user namespace in which the program is root and its groups have other numbers. A nil User
// stays who it is, with the groups that it has: those cannot be dropped, nor need they, being the user's own.
func (u *User) mappings() (uids, gids []syscall.SysProcIDMap, c *syscall.Credential) {
	if u == nil {
		return []syscall.SysProcIDMap{{HostID: os.Geteuid(), Size: 1}}, []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}},
			&syscall.Credential{NoSetGroups: true}
	}
	uids = []syscall.SysProcIDMap{{HostID: int(u.ID), Size: 1}}
	gids = []syscall.SysProcIDMap{{HostID: int(u.ID), Size: 1}}
	c = &syscall.Credential{}
	for i, group := range u.Groups {
		gids = append(gids, syscall.SysProcIDMap{ContainerID: i + 1, HostID: int(group), Size: 1})
		c.Groups = append(c.Groups, uint32(i+1))
	}
	return uids, gids, c
}

// credential is whom the launcher becomes itself, because it needs root's power before.
func (w way) credential(r *Room) *User {
	if r == nil || w.userspace {
		return nil
	}
	return r.User
}
