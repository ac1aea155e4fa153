package confine

import (
	"fmt"
	"math"
	"os"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Filter decides about each system call of a program and of all that it starts (seccomp(2)). A program of
// another architecture than ours is killed at its first call. There is a library for such filters
// (elastic/go-seccomp-bpf); it lets calls of other architectures have the default, which would be a hole in a
// filter that allows by default, and has one error number only.
type Filter struct {
	Rules   []Rule // the first that fits counts
	Default Action
}

// Rule is what is done about calls.
type Rule struct {
	Calls []int // numbers, such as unix.SYS_READ
	When  []Condition
	Do    Action
}

// Condition is on an argument of a call: its lower 32 bits, which are all that the kernel itself looks at where
// an argument is an int, have the Value in the bits of the Mask. With Not, they do not.
type Condition struct {
	Arg         int
	Mask, Value uint32
	Not         bool
	Self        bool // the Value is the number of the program's process, and the Mask is all bits
}

// Action is what happens to a call.
type Action uint32

// The actions. Refuse is another.
const (
	Allow Action = unix.SECCOMP_RET_ALLOW
	Kill  Action = unix.SECCOMP_RET_KILL_PROCESS
	// Notify lets whoever has the Spec's Listener decide, while the caller waits. Of a filter that the program installs
	// itself, all actions but Allow count for more. Once the listener is closed, the call fails with ENOSYS.
	Notify Action = unix.SECCOMP_RET_USER_NOTIF
)

// Refuse lets a call fail.
func Refuse(e syscall.Errno) Action { return Action(unix.SECCOMP_RET_ERRNO | uint32(e)) }

// Where things are in struct seccomp_data, which has the byte order of the machine: little-endian on all that we
// run on.
const (
	offCall = 0
	offArch = 4
	offArgs = 16
)

// assemble makes what the kernel takes, for the process self.
func (f *Filter) assemble(self int) ([]unix.SockFilter, error) {
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: auditArch, SkipTrue: 1},
		bpf.RetConstant{Val: uint32(Kill)},
		bpf.LoadAbsolute{Off: offCall, Size: 4},
		// Of x86-64, the calls of x32, which have the same architecture; nowhere else are numbers so high.
		bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 0x40000000, SkipTrue: 1},
		bpf.RetConstant{Val: uint32(Kill)},
	}
	for _, r := range f.Rules {
		for _, call := range r.Calls {
			code = append(code, r.code(call, self)...)
		}
	}
	code = append(code, bpf.RetConstant{Val: uint32(f.Default)})
	raw, err := bpf.Assemble(code)
	if err != nil {
		return nil, fmt.Errorf("composing the filter of system calls: %w", err)
	}
	if len(raw) > unix.BPF_MAXINSNS {
		return nil, fmt.Errorf("the filter of system calls has %d instructions, and the kernel takes %d", len(raw), unix.BPF_MAXINSNS)
	}
	program := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		program[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return program, nil
}

// code begins and, unless it decides, ends with the call's number in the accumulator.
func (r Rule) code(call, self int) []bpf.Instruction {
	var test []bpf.Instruction
	end := 3*len(r.When) + 2 // what is to be skipped from the first instruction of test on: up to the last
	for i, c := range r.When {
		if c.Self {
			c.Mask, c.Value = math.MaxUint32, uint32(self)
		}
		jump := bpf.JumpIf{Cond: bpf.JumpEqual, Val: c.Value, SkipFalse: uint8(end - 3*i - 3 - 1)}
		if c.Not {
			jump.SkipTrue, jump.SkipFalse = jump.SkipFalse, 0
		}
		test = append(test, bpf.LoadAbsolute{Off: offArgs + 8*uint32(c.Arg), Size: 4}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: c.Mask}, jump)
	}
	test = append(test, bpf.RetConstant{Val: uint32(r.Do)})
	if len(r.When) > 0 {
		test = append(test, bpf.LoadAbsolute{Off: offCall, Size: 4})
	}
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(call), SkipFalse: uint8(len(test))}}, test...)
}

// notifies tells whether a rule asks a listener. It may be called on nil.
func (f *Filter) notifies() bool {
	return f != nil && slices.ContainsFunc(f.Rules, func(r Rule) bool { return r.Do == Notify })
}

// prepared is a filter that can be installed; an empty one filters nothing.
type prepared struct {
	code     []unix.SockFilter
	notifies bool
}

// prepare may be called on nil.
func (f *Filter) prepare(r *Report) (prepared, error) {
	if f == nil {
		return prepared{}, nil
	}
	what := "all but some are allowed"
	if f.Default != Allow {
		what = "only some are allowed"
	}
	r.has(WallSyscalls, what)
	code, err := f.assemble(os.Getpid())
	return prepared{code, f.notifies()}, err
}

// install makes the kernel filter all further calls of this thread. It returns the listener of a filter that notifies,
// and else -1. That there can be none is a *NotifyError.
func (p prepared) install() (listener int, err error) {
	if len(p.code) == 0 {
		return -1, nil
	}
	prog := unix.SockFprog{Len: uint16(len(p.code)), Filter: &p.code[0]}
	set := func(flags uintptr) (int, syscall.Errno) {
		fd, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		return int(fd), e
	}
	if !p.notifies {
		if _, e := set(0); e != 0 {
			return -1, fmt.Errorf("filtering system calls: %w", e)
		}
		return -1, nil
	}
	// A signal would interrupt a call that is being decided, which then is decided anew: since Linux 5.19 only one
	// that kills does.
	fd, e := set(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	if e == unix.EINVAL {
		fd, e = set(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	}
	if e != 0 {
		return -1, &NotifyError{e.Error(), e == unix.EBUSY}
	}
	return fd, nil
}

// NotifyError reports that system calls cannot be decided by a listener on this machine.
type NotifyError struct {
	// Reason is the kernel's.
	Reason string
	// Taken says that somebody else decides about calls of this process already, such as a container's manager: there
	// can be one only.
	Taken bool
}

// Error gives the reason.
func (e *NotifyError) Error() string {
	if e.Taken {
		return "system calls cannot be decided here, because those of this process are decided by somebody else already, as in some containers"
	}
	return "the kernel lets nobody decide about system calls (it takes Linux 5.6 or newer): " + e.Reason
}
