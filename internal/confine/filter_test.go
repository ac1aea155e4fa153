package confine

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// decide runs a filter as the kernel would. The virtual machine is for packets, which have the other byte order.
func decide(t *testing.T, f Filter, arch uint32, call int, args ...uint64) Action {
	t.Helper()
	code, err := f.assemble(77)
	if err != nil {
		t.Fatal(err)
	}
	var list []bpf.Instruction
	for _, c := range code {
		list = append(list, bpf.RawInstruction{Op: c.Code, Jt: c.Jt, Jf: c.Jf, K: c.K}.Disassemble())
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, offArgs+6*8)
	binary.BigEndian.PutUint32(data[offCall:], uint32(call))
	binary.BigEndian.PutUint32(data[offArch:], arch)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(arg))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(arg>>32))
	}
	n, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return Action(uint32(n))
}

func TestFilterDecides(t *testing.T) {
	setID := []Condition{{Arg: 1, Mask: 0o6000, Value: 0, Not: true}}
	f := Filter{
		Rules: []Rule{
			{Calls: []int{unix.SYS_FCHMOD}, When: setID, Do: Refuse(unix.EPERM)},
			{Calls: []int{unix.SYS_SOCKET}, When: []Condition{{Arg: 0, Mask: ^uint32(0), Value: unix.AF_INET}, {Arg: 1, Mask: 0xf, Value: unix.SOCK_STREAM}}, Do: Allow},
			{Calls: []int{unix.SYS_SOCKET, unix.SYS_KEYCTL}, Do: Refuse(unix.EACCES)},
			{Calls: []int{unix.SYS_KILL}, When: []Condition{{Arg: 0, Self: true, Not: true}}, Do: Kill},
		},
		Default: Allow,
	}
	for _, tt := range []struct {
		name string
		arch uint32
		call int
		args []uint64
		want Action
	}{
		{"no rule", auditArch, unix.SYS_READ, nil, Allow},
		{"no condition", auditArch, unix.SYS_KEYCTL, []uint64{1}, Refuse(unix.EACCES)},
		{"a bit", auditArch, unix.SYS_FCHMOD, []uint64{3, 0o4755}, Refuse(unix.EPERM)},
		{"the other bit", auditArch, unix.SYS_FCHMOD, []uint64{3, 0o2755}, Refuse(unix.EPERM)},
		{"other bits", auditArch, unix.SYS_FCHMOD, []uint64{0o6000, 0o755}, Allow},
		{"what the kernel does not look at", auditArch, unix.SYS_FCHMOD, []uint64{3, 0o6000 << 32}, Allow},
		{"all conditions", auditArch, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_STREAM | unix.SOCK_CLOEXEC}, Allow},
		{"only one condition", auditArch, unix.SYS_SOCKET, []uint64{unix.AF_INET, unix.SOCK_RAW}, Refuse(unix.EACCES)},
		{"no condition of two", auditArch, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, unix.SOCK_RAW}, Refuse(unix.EACCES)},
		{"itself", auditArch, unix.SYS_KILL, []uint64{77, 9}, Allow},
		{"another", auditArch, unix.SYS_KILL, []uint64{78, 9}, Kill},
		{"another architecture", unix.AUDIT_ARCH_I386, unix.SYS_READ, nil, Kill},
		{"x32", auditArch, 0x40000000 | unix.SYS_READ, nil, Kill},
	} {
		if got := decide(t, f, tt.arch, tt.call, tt.args...); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}
