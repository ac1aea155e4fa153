package machine

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/flock"
)

// Rename gives a sandbox that does not run another name, which is its host
// name from the next start on. The returned sandbox is the one to use from now
// on. A taken name is an error.
//
// The name of the directory is the name of the sandbox, so the rename is done
// in one step; what else knows the name follows, and no crash in between does
// harm.
func (s *Sandbox) Rename(name string) (*Sandbox, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	renamed := &Sandbox{Name: name, host: s.host}
	c, err := s.Config()
	if err != nil {
		return nil, fmt.Errorf("the sandbox %s is broken and can only be removed: %w", s.Name, err)
	}
	c.Name = name
	if err := s.host.checkSocketPath(c); err != nil {
		return nil, err
	}
	lock, err := s.lock()
	switch {
	case errors.Is(err, flock.ErrLocked) && !s.State().live():
		return nil, s.busy() // with another command
	case errors.Is(err, flock.ErrLocked):
		return nil, fmt.Errorf("the sandbox %s is %s, and its guest and sockets know it by its name: stop it first (sandbox stop %[1]s)", s.Name, s.State().Status)
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no sandbox named %s any more", s.Name)
	case err != nil:
		return nil, err
	}
	defer lock.Close()
	if name == s.Name {
		return s, nil
	}
	if err := moveDir(s.dir(), renamed.dir()); err != nil {
		if errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("a sandbox named %s exists already: choose another name, or remove it (sandbox rm %[1]s)", name)
		}
		return nil, fmt.Errorf("renaming %s to %s: %w", s.Name, name, err)
	}
	return renamed, errors.Join(
		os.RemoveAll(s.runtimeDir()),
		writeJSON(renamed.path(configFile), c),
		recommentKey(renamed.key(clientKey), name),
		recommentKey(renamed.key(hostKey), name),
	)
}

// moveDir never replaces what is at to, not even an empty directory: another
// command may be about to fill it.
func moveDir(from, to string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE); err != nil {
		return &os.LinkError{Op: "renameat2", Old: from, New: to, Err: err}
	}
	return nil
}

// recommentKey writes the private key at path anew with the comment that
// writeKey would have given it.
func recommentKey(path, comment string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return fmt.Errorf("the key %s is damaged: %w", path, err)
	}
	block, err := ssh.MarshalPrivateKey(key, "sandbox "+comment)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("writing the key %s: %w", path, err)
	}
	return nil
}
