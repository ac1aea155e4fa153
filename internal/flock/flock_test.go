package flock_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/flock"
)

func TestUnlockHoldsAlthoughAChildIsAboutToExecute(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := flock.Try(path, true)
	if err != nil {
		t.Fatal(err)
	}
	childs, err := unix.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(childs)
	if err := flock.Unlock(lock); err != nil {
		t.Fatal(err)
	}
	again, err := flock.Try(path, false)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestWhoWaitsIsToldOnceAndGetsTheLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := flock.Wait(path, func() { t.Error("waited for a lock that is free") })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := flock.Try(path, false); !errors.Is(err, flock.ErrLocked) {
		t.Errorf("a lock that is owned: %v", err)
	}
	second, err := flock.Wait(path, func() {
		if err := flock.Unlock(first); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if owned, err := flock.Owned(f); err != nil || !owned {
		t.Errorf("owned: %t, %v", owned, err)
	}
}
