package login

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// Login is one of the user's at a provider.
type Login struct {
	Access  secret.Value
	Refresh secret.Value
	Expires time.Time // the access token
	Scopes  []string
	Account string    // by which requests name it; empty: they do not
	Plan    string    // of the subscription, as the provider calls it; empty: unknown
	Since   time.Time // when the user logged in
	Renewed time.Time // when the tokens are from
	Ended   string    // why no access token is given for it any more; empty: it has not ended
}

// record is a login in its file.
type record struct {
	Access  string    `json:"accessToken"`
	Refresh string    `json:"refreshToken"`
	Expires time.Time `json:"expires"`
	Scopes  []string  `json:"scopes,omitempty"`
	Account string    `json:"account,omitempty"`
	Plan    string    `json:"plan,omitempty"`
	Since   time.Time `json:"since"`
	Renewed time.Time `json:"renewed"`
	Ended   string    `json:"ended,omitempty"`
}

// Store has logins: a file for each, which is the user's alone, in a directory that is.
type Store struct{ Dir string }

const (
	suffix      = ".json"
	lockSuffix  = ".lock"
	draftSuffix = ".draft"

	// maxFile is more than a login has, in bytes. So much space is there before a provider is asked.
	maxFile = 64 << 10

	// lockPause is how often a lock is tried that somebody has: for as long as a provider takes to answer.
	lockPause = 50 * time.Millisecond
)

// Get returns the login at that provider. The error is os.ErrNotExist if there is none.
func (s Store) Get(name string) (Login, error) {
	if _, err := Find(name); err != nil {
		return Login{}, err
	}
	l, err := read(filepath.Join(s.Dir, name+suffix))
	if _, ok := errors.AsType[*trust.Error](err); ok {
		err = fmt.Errorf("%w: end it at the provider, and log in again", err)
	}
	if err != nil {
		return Login{}, fmt.Errorf("reading the login at %s: %w", name, err)
	}
	return l, nil
}

// read has errors that repeat nothing of what the file has.
func read(path string) (Login, error) {
	f, err := trust.OpenPrivate(path)
	if err != nil {
		return Login{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	if err != nil {
		return Login{}, err
	}
	var r record
	if json.Unmarshal(text, &r) != nil {
		return Login{}, &damagedError{path}
	}
	l := Login{Expires: r.Expires, Scopes: r.Scopes, Account: r.Account, Plan: r.Plan, Since: r.Since, Renewed: r.Renewed, Ended: r.Ended}
	var errAccess, errRefresh error
	l.Access, errAccess = secret.NewValue(r.Access)
	l.Refresh, errRefresh = secret.NewValue(r.Refresh)
	if errAccess != nil || errRefresh != nil {
		return Login{}, &damagedError{path}
	}
	return l, nil
}

type damagedError struct{ path string }

func (e *damagedError) Error() string {
	return e.path + " is damaged, or from a newer version: log in again"
}

// Put stores a login in place of the one that there is.
func (s Store) Put(ctx context.Context, name string, l Login) error {
	return s.change(ctx, name, func(c *change) error { return c.write(l) })
}

// Remove forgets a login, which goes on at the provider. The error is os.ErrNotExist if there is none.
func (s Store) Remove(ctx context.Context, name string) error {
	if _, err := os.Lstat(filepath.Join(s.Dir, name+suffix)); err != nil {
		return err
	}
	return s.change(ctx, name, func(c *change) error {
		return errors.Join(c.dir.Remove(name+suffix), c.file.Sync())
	})
}

// Stored is a login as lists have it.
type Stored struct {
	Name string `json:"name"`
	Login
}

// List returns all logins, by their names. One that cannot be read is among the errors.
func (s Store) List() (all []Stored, err error) {
	var errs []error
	for _, name := range Names() {
		l, err := s.Get(name)
		switch {
		case err == nil:
			all = append(all, Stored{name, l})
		case !errors.Is(err, os.ErrNotExist):
			errs = append(errs, err)
		}
	}
	return all, errors.Join(errs...)
}

// change is what somebody does with a login whose lock he has.
type change struct {
	name  string
	dir   *os.Root
	file  *os.File // the directory
	draft *os.File // nil before there is one
	whole bool     // it has all that it is to have
}

// change makes the directory the user's alone, and changes a login that nobody else changes at the same time.
func (s Store) change(ctx context.Context, name string, do func(*change) error) (err error) {
	if _, err := Find(name); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("changing the login at %s in %s: %w", name, s.Dir, err)
		}
	}()
	c := &change{name: name}
	if c.file, err = trust.MakeDir(s.Dir); err != nil {
		return err
	}
	defer c.file.Close()
	if err := c.file.Chmod(0o700); err != nil {
		return err
	}
	lock, err := waitForLock(ctx, filepath.Join(s.Dir, name+lockSuffix))
	if err != nil {
		return err
	}
	defer lock.Close()
	if c.dir, err = os.OpenRoot(s.Dir); err != nil {
		return err
	}
	defer c.dir.Close()
	if err := c.takeUp(filepath.Join(s.Dir, name+draftSuffix)); err != nil {
		return err
	}
	defer c.discard()
	return do(c)
}

func waitForLock(ctx context.Context, path string) (*os.File, error) {
	for {
		f, err := flock.Try(path, true)
		if !errors.Is(err, flock.ErrLocked) {
			return f, err
		}
		select {
		case <-time.After(lockPause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// takeUp puts a draft in its place that somebody has written and could not put there any more: what it has may be
// all that the provider still takes.
func (c *change) takeUp(path string) error {
	_, err := read(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if _, half := errors.AsType[*damagedError](err); half {
		return c.dir.Remove(c.name + draftSuffix)
	}
	if err != nil {
		return err
	}
	return c.dir.Rename(c.name+draftSuffix, c.name+suffix)
}

// prepare makes a draft that the disk has room for.
func (c *change) prepare() (err error) {
	if c.draft, err = c.dir.OpenFile(c.name+draftSuffix, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	err = unix.Fallocate(int(c.draft.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, maxFile)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("making room for it: %w", err)
	}
	return nil
}

// write puts a login in the place of the one that there is.
func (c *change) write(l Login) error {
	text, err := json.MarshalIndent(record{
		Access: l.Access.Reveal(), Refresh: l.Refresh.Reveal(), Expires: l.Expires.UTC(), Scopes: l.Scopes, Account: l.Account, Plan: l.Plan,
		Since: l.Since.UTC(), Renewed: l.Renewed.UTC(), Ended: l.Ended,
	}, "", "  ")
	if err != nil {
		return err
	}
	if len(text) >= maxFile {
		return errors.New("the provider's tokens are longer than a login can be")
	}
	if c.draft == nil {
		if err := c.prepare(); err != nil {
			return err
		}
	}
	if _, err = c.draft.Write(append(text, '\n')); err != nil {
		return err
	}
	if err := errors.Join(c.draft.Truncate(int64(len(text)+1)), c.draft.Sync()); err != nil {
		return err
	}
	c.whole = true
	if err := c.dir.Rename(c.name+draftSuffix, c.name+suffix); err != nil {
		return err
	}
	return c.file.Sync()
}

// discard closes the draft, and removes one that nothing came of.
func (c *change) discard() {
	if c.draft == nil {
		return
	}
	c.draft.Close()
	if !c.whole {
		_ = c.dir.Remove(c.name + draftSuffix)
	}
}

// EndedError is that a provider gives no access token for a login any more.
type EndedError struct{ Name, Reason string }

func (e *EndedError) Error() string {
	return fmt.Sprintf("the login at %s has ended: %s", e.Name, strings.TrimSuffix(e.Reason, "."))
}
