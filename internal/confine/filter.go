package confine

import (
	"fmt"
	"math"
	"os"
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

// prepared is a filter that can be installed; an empty one filters nothing.
type prepared []unix.SockFilter

// prepare may be called on nil.
func (f *Filter) prepare(r *Report) (prepared, error) {
	if f == nil {
		return nil, nil
	}
	what := "all but some are allowed"
	if f.Default != Allow {
		what = "only some are allowed"
	}
	r.has(WallSyscalls, what)
	return f.assemble(os.Getpid())
}

// install makes the kernel filter all further calls of this thread.
func (p prepared) install() error {
	if len(p) == 0 {
		return nil
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return fmt.Errorf("filtering system calls: %w", e)
	}
	return nil
}
