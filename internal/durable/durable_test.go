package durable

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCloneKeepsContentAndHoles(t *testing.T) {
	const size = 64 << 20
	src := filepath.Join(t.TempDir(), "sparse")
	f, err := os.Create(src)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, at := range []int64{0, 3<<20 + 17, size - 9} {
		if _, err := f.WriteAt([]byte("something"), at); err != nil {
			t.Fatal(err)
		}
	}
	dst := filepath.Join(t.TempDir(), "copy")
	if err := Clone(t.Context(), src, dst); err != nil {
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
	if err := Clone(t.Context(), src, dst); err == nil {
		t.Error("what was there has been replaced")
	}
}

func TestDirectoryIsReplacedWhetherOrNotOneWasThere(t *testing.T) {
	root := t.TempDir()
	for _, text := range []string{"first", "second"} {
		from, to := filepath.Join(root, "from"), filepath.Join(root, "to")
		if err := os.Mkdir(from, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, "file"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ReplaceDir(from, to); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(to, "file")); string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
		if left, err := os.ReadDir(root); err != nil || len(left) != 1 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}
