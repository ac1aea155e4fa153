package machine

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnlockHoldsAlthoughAChildIsAboutToExecute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := tryLock(path, true)
	if err != nil {
		t.Fatal(err)
	}
	childs, err := unix.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(childs)
	if err := unlock(lock); err != nil {
		t.Fatal(err)
	}
	again, err := tryLock(path, false)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
