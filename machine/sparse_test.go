package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// sparseFile has data at its beginning and far behind, and is big.
func sparseFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 3*piece + 17, size - 9} {
		if _, err := f.WriteAt([]byte("something"), at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	sum, err := checksum(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func TestCloneKeepsContentAndHoles(t *testing.T) {
	const size = 64 << 20
	src := sparseFile(t, size)
	dst := filepath.Join(t.TempDir(), "copy")
	if err := cloneFile(t.Context(), src, dst); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(dst)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("the copy differs (%d bytes, %v)", len(got), err)
	}
	var st unix.Stat_t
	if err := unix.Stat(dst, &st); err != nil || st.Blocks*512 > size/10 || st.Mode&0o777 != 0o600 {
		t.Errorf("the copy takes %d bytes, mode %o, %v", st.Blocks*512, st.Mode, err)
	}
	if err := cloneFile(t.Context(), src, dst); err == nil {
		t.Error("what was there has been replaced")
	}
}

func TestChecksumIsOfWhatIsNotZero(t *testing.T) {
	const size = 16 << 20
	path := sparseFile(t, size)
	sum := sumOf(t, path)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(t.TempDir(), "full")
	writeFile(t, full, string(data))
	if got := sumOf(t, full); got != sum {
		t.Error("zeroes count as something else than holes")
	}
	for what, damage := range map[string]func([]byte) []byte{
		"a changed byte":   func(b []byte) []byte { b[size-1]++; return b },
		"a byte in a hole": func(b []byte) []byte { b[size/2] = 1; return b },
		"a block elsewhere": func(b []byte) []byte {
			copy(b[5*piece:], b[:piece])
			clear(b[:piece])
			return b
		},
		"an end cut off":  func(b []byte) []byte { return b[:size-piece] },
		"zeroes appended": func(b []byte) []byte { return append(b, make([]byte, piece)...) },
	} {
		writeFile(t, full, string(damage(bytes.Clone(data))))
		if sumOf(t, full) == sum {
			t.Errorf("%s is not noticed", what)
		}
	}
}
