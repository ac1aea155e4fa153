package gate

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestNamesAreReadUpToTheirEnd(t *testing.T) {
	const page = 4096
	memory, err := unix.Mmap(-1, 0, 3*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(memory) })
	if err := unix.Mprotect(memory[2*page:], unix.PROT_NONE); err != nil {
		t.Fatal(err)
	}
	c := &callers{}
	n := &notification{pid: uint32(os.Getpid())}
	put := func(at int, text string) uint64 {
		copy(memory[at:], text)
		return uint64(uintptr(unsafe.Pointer(&memory[at])))
	}
	for _, tt := range []struct {
		at   int
		text string // with its end
		want error
	}{
		{0, "name\x00rest", nil},
		{10, "\x00", nil},
		{page - 3, "over the edge\x00", nil},
		{2*page - 5, "last\x00", nil},
		{2*page - 4, "last", unix.EFAULT},
		{0, strings.Repeat("x", 4096), unix.ENAMETOOLONG},
		{0, strings.Repeat("x", 4095) + "\x00", nil},
	} {
		clear(memory[:2*page])
		address := put(tt.at, tt.text)
		if tt.want != nil && tt.at == 0 {
			put(page, strings.Repeat("x", 100))
		}
		got, err := c.text(n, address)
		if want, _, _ := strings.Cut(tt.text, "\x00"); !errors.Is(err, tt.want) || err == nil && got != want {
			t.Errorf("at %d: %q, %v; want %q, %v", tt.at, got, err, want, tt.want)
		}
		// The same beside another one, in either place.
		other := put(2*page-10, "2\x00")
		for i, addresses := range [][2]uint64{{address, other}, {other, address}} {
			got, err := c.texts(n, addresses)
			want, _, _ := strings.Cut(tt.text, "\x00")
			if !errors.Is(err, tt.want) || err == nil && (got[i] != want || got[1-i] != "2") {
				t.Errorf("at %d, and another one: %q, %v; want %q, %v", tt.at, got, err, want, tt.want)
			}
		}
	}
}
