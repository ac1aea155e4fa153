package supervisor

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

func TestMemoryIsCopiedWithoutItsZeroes(t *testing.T) {
	const size = 64 << 20
	memory, err := newMemory(size)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	written := map[int64][]byte{
		0:                          []byte("first"),
		5<<20 + 100:                bytes.Repeat([]byte{7}, 3<<20),
		20 << 20:                   make([]byte, 8<<20), // zeroes that were written
		size - memoryPage:          bytes.Repeat([]byte{1}, memoryPage),
		40<<20 + 3*memoryPage - 10: []byte("across two pages"),
	}
	for at, data := range written {
		if _, err := memory.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	out, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if err := copyMemory(t.Context(), memory, out); err != nil {
		t.Fatal(err)
	}
	want, got := make([]byte, size), make([]byte, size)
	if _, err := memory.ReadAt(want, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := out.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the copy differs")
	}
	if takes := blocks(t, out); takes > 4<<20 {
		t.Errorf("the copy takes %d bytes", takes)
	}
}

func TestCopyOfMemoryEndsWithItsContext(t *testing.T) {
	memory, err := newMemory(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if _, err := memory.WriteAt(bytes.Repeat([]byte{1}, 8<<20), 0); err != nil {
		t.Fatal(err)
	}
	out, err := newMemory(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyMemory(ctx, memory, out); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
