package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	firstFile = 3   // is the number of a program's first file
	maxFiles  = 256 // are more than programs have but in tests
)

// Main does the work of a launcher and never returns if this process was started as one; otherwise it returns at
// once. It stands first in the main function of every program that calls Start, and in TestMain.
func Main() {
	if os.Args[0] != launcherName {
		return
	}
	// What is done to a thread is done to the program, which this thread executes.
	runtime.LockOSThread()
	j, control, err := accept(firstFile)
	if err == nil {
		err = j.launch(control)
	} else {
		err = fmt.Errorf("the launcher was not told what to do: %w", err)
	}
	_, closed := errors.AsType[*closedError](err)
	notify, _ := errors.AsType[*NotifyError](err)
	alone, _ := errors.AsType[*AloneError](err)
	_ = reply(control, answer{Error: err.Error(), Closed: closed, Notify: notify, Alone: alone}) // there is nobody else to tell
	os.Exit(1)
}

// reply tells who started the launcher, and gives it the descriptors.
func reply(control int, a answer, fds ...int) error {
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	return unix.Sendmsg(control, data, rights, nil, 0)
}

// launch returns only errors.
func (j job) launch(control int) error {
	var r Report
	if err := j.confine(&r); err != nil {
		return err
	}
	filter, err := j.Filter.prepare(&r)
	if err != nil {
		return err
	}
	// Since this process became another user, or a thread of its own, our parent's death may be forgotten. Should
	// the parent be dead already, it does not take the answer.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("binding the program's life to ours: %w", err)
	}
	if err := reply(control, answer{Report: &r}); err != nil {
		return err
	}
	if j.Path == "" {
		os.Exit(0)
	}
	listener, err := filter.install()
	if err != nil {
		return err
	}
	if listener >= 0 {
		if err := reply(control, answer{Report: &r}, listener); err != nil {
			return err
		}
	}
	return fmt.Errorf("executing %s: %w", j.Path, syscall.Exec(j.Path, j.Args, j.Env))
}

// confine puts up all walls but the filter of system calls, which would be in the way of the others.
func (j job) confine(r *Report) error {
	if j.Room != nil {
		if err := j.enterRoom(r); err != nil {
			return err
		}
	}
	if j.Alone != "" {
		if err := showAlone(j.Alone); err != nil {
			return &AloneError{fmt.Sprintf("showing %s alone: %v", j.Alone, err)}
		}
	}
	// From here on, no program that is executed can have more than this process has.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("renouncing new privileges: %w", err)
	}
	if j.Room != nil {
		r.has(WallPrivileges, "no capabilities and none to gain")
		if err := j.restrictFiles(r); err != nil {
			return err
		}
	}
	return nil
}

// limitTo makes the hard limit of a resource no higher than most, which who is not root cannot raise again, and the
// soft one equal to it.
func limitTo(resource int, most uint64) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(resource, &limit); err != nil {
		return err
	}
	limit.Max = min(limit.Max, most)
	limit.Cur = limit.Max
	return unix.Setrlimit(resource, &limit)
}

// enterRoom shuts this process in, with what it holds.
func (j job) enterRoom(r *Report) error {
	// One byte is too little for any core dump, and a limit of 1 is what the kernel takes for "none" where core
	// dumps are piped to a program, which has no limit otherwise. In a session of sudo it is 0 already.
	if err := limitTo(unix.RLIMIT_CORE, 1); err != nil {
		return fmt.Errorf("forbidding core dumps: %w", err)
	}
	// QEMU raises its soft limit itself, which is a system call that the filter refuses, and version 10.0 dies of an
	// assertion when it wants to warn of that: it warns before it can (os_setup_limits).
	if err := limitTo(unix.RLIMIT_NOFILE, math.MaxUint64); err != nil {
		return fmt.Errorf("raising the limit of open files: %w", err)
	}
	// No process group in common with us, which signals could be sent to, and no terminal.
	if _, err := syscall.Setsid(); err != nil {
		return fmt.Errorf("making a session: %w", err)
	}
	switch {
	case j.Room.Namespaces:
		if err := j.Room.enter(j.Files); err != nil {
			return refused("a root directory of its own", err)
		}
		detail := "mount, pid, ipc, uts"
		if j.Room.UserSpace {
			detail = "user, " + detail
		}
		if !j.Room.Network {
			detail += ", net"
		}
		r.has(WallNamespaces, detail+", with a root directory of its own")
	default:
		r.lacks(WallNamespaces, errors.New("none can be made"))
	}
	// A new session key ring: not the one that its user logged in with. Where keyrings are forbidden, as in
	// containers, they are so for the program, too.
	_, _ = unix.KeyctlJoinSessionKeyring("")
	return j.dropPrivileges(r)
}
