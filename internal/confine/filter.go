package confine

import (
	"encoding/binary"
	"fmt"
	"syscall"

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

// assemble makes what the kernel takes: an array of struct sock_filter.
func (f *Filter) assemble() ([]byte, error) {
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
			code = append(code, r.code(call)...)
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
	var b []byte
	for _, i := range raw {
		b = binary.NativeEndian.AppendUint16(b, i.Op)
		b = binary.NativeEndian.AppendUint32(append(b, i.Jt, i.Jf), i.K)
	}
	return b, nil
}

// code begins and, unless it decides, ends with the call's number in the accumulator.
func (r Rule) code(call int) []bpf.Instruction {
	var test []bpf.Instruction
	end := 3*len(r.When) + 2 // what is to be skipped from the first instruction of test on: up to the last
	for i, c := range r.When {
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
