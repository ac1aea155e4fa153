package secret

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/trust"
)

// Store has secrets that the user has given once: a file for each, which is the user's alone, in a directory that is.
type Store struct{ Dir string }

// draft is what is being written. No variable has such a name, and what a kill has left of it is the next one's.
const draft = ".draft"

func (s Store) path(name string) (string, error) {
	if err := CheckName(name); err != nil {
		return "", fmt.Errorf("a secret's name is that of a variable: %w", err)
	}
	return filepath.Join(s.Dir, name), nil
}

// Set stores a value, in place of what was there. Names are those of variables.
func (s Store) Set(name string, v Value) error {
	if _, err := s.path(name); err != nil {
		return err
	}
	return s.change("storing", name, func(dir *os.Root) error {
		f, err := dir.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		_, err = io.WriteString(f, v.Reveal()+"\n")
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return errors.Join(err, dir.Remove(draft))
		}
		return dir.Rename(draft, name)
	})
}

// Remove forgets a value. The error is os.ErrNotExist if there is none.
func (s Store) Remove(name string) error {
	path, err := s.path(name)
	if err == nil {
		_, err = os.Lstat(path)
	}
	if err != nil {
		return err
	}
	return s.change("removing", name, func(dir *os.Root) error { return dir.Remove(name) })
}

// change makes the directory the user's alone, and does something in it that no other process does at the same time.
func (s Store) change(what, name string, do func(dir *os.Root) error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s the secret %s in %s: %w", what, name, s.Dir, err)
		}
	}()
	f, err := trust.MakeDir(s.Dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o700); err != nil {
		return err
	}
	if err := lock(f); err != nil {
		return err
	}
	dir, err := os.OpenRoot(s.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Remove(draft); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := do(dir); err != nil {
		return err
	}
	return f.Sync()
}

// lock waits for others that change the store, which they do in a moment.
func lock(dir *os.File) error {
	for {
		if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("flock", err)
		}
	}
}

// Get returns a value. The error is os.ErrNotExist if there is none.
func (s Store) Get(name string) (Value, error) {
	path, err := s.path(name)
	if err != nil {
		return Value{}, err
	}
	v, err := readOwn(path)
	if err != nil {
		return Value{}, fmt.Errorf("reading the secret %s: %w", name, err)
	}
	return v, nil
}

// readOwn reads a file that is nobody else's.
func readOwn(path string) (Value, error) {
	f, err := trust.OpenPrivate(path)
	if _, ok := errors.AsType[*trust.Error](err); ok {
		err = fmt.Errorf("%w: replace the secret where it is from, and store the new one", err)
	}
	if err != nil {
		return Value{}, err
	}
	defer f.Close()
	return Read(f)
}

// Stored is a secret of a store.
type Stored struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"` // when it was stored
}

// List returns all secrets, by their names.
func (s Store) List() ([]Stored, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	all := []Stored{}
	for _, entry := range entries {
		info, err := entry.Info()
		if err == nil && CheckName(entry.Name()) == nil { // else it was removed just now, or is none
			all = append(all, Stored{entry.Name(), info.ModTime()})
		}
	}
	return all, nil
}
