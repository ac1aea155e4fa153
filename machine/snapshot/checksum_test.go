package snapshot

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

const testPiece = 1 << 20

// sparseFile has data at its beginning and far behind, and is big.
func sparseFile(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 3*testPiece + 17, size - 9} {
		if _, err := f.WriteAt([]byte("something"), at); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func sumOf(t *testing.T, path string) string {
	t.Helper()
	sum, err := Checksum(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	return sum
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
	if err := os.WriteFile(full, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := sumOf(t, full); got != sum {
		t.Error("zeroes count as something else than holes")
	}
	for what, damage := range map[string]func([]byte) []byte{
		"a changed byte":   func(b []byte) []byte { b[size-1]++; return b },
		"a byte in a hole": func(b []byte) []byte { b[size/2] = 1; return b },
		"a block elsewhere": func(b []byte) []byte {
			copy(b[5*testPiece:], b[:testPiece])
			clear(b[:testPiece])
			return b
		},
		"an end cut off":  func(b []byte) []byte { return b[:size-testPiece] },
		"zeroes appended": func(b []byte) []byte { return append(b, make([]byte, testPiece)...) },
	} {
		if err := os.WriteFile(full, damage(bytes.Clone(data)), 0o600); err != nil {
			t.Fatal(err)
		}
		if sumOf(t, full) == sum {
			t.Errorf("%s is not noticed", what)
		}
	}
}
