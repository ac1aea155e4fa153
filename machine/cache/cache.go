// Package cache is the store of what guests have cached for the projects that they worked on: a disk for
// each directory of a project's guests.
//
// A sandbox begins with the layers of that disk and one of its own above them, so that several use one
// cache at a time without hearing of each other. At its end, its layers are what is kept: who ends last
// decides. Layers that are in the store never change. What is on a disk is the guests' alone: nobody here
// reads more of it than the headers of its layers.
package cache

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine/disk"
)

// Store is a directory of the user's alone with a directory for each cache, which has the layers of its
// disk and entryFile. It is made with the first.
type Store struct{ Dir string }

const (
	entryFile = "cache.json"
	lockFile  = "lock" // flock: held while a cache is taken, kept or removed
)

// Key says which cache is meant.
type Key struct {
	Project string `json:"project"` // a directory of the host
	Target  string `json:"target"`  // a directory of the guest
}

// ID is the key's name in the store.
func (k Key) ID() string {
	sum := sha256.Sum256([]byte(k.Project + "\x00" + k.Target))
	return hex.EncodeToString(sum[:6])
}

// Entry is a cache that was kept.
type Entry struct {
	Key
	Kept time.Time `json:"kept"`
	Used int64     `json:"-"` // what it takes on the host, in bytes, with what sandboxes have of it too
}

func (s Store) dir(id string) string { return filepath.Join(s.Dir, id) }

func (s Store) lock() (unlock func(), err error) {
	dir, err := trust.MakeDir(s.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	lock, err := flock.Wait(filepath.Join(s.Dir, lockFile), nil)
	return func() { flock.Unlock(lock) }, err
}

// Take makes the directory to, which must not exist, with the layers of a cache, none of which may be
// changed. Without such a cache the error is fs.ErrNotExist, and to is not there. What somebody has
// written to the layers' headers is an error too, *qemu.LayerError.
func (s Store) Take(ctx context.Context, k Key, to disk.Layers) error {
	if !durable.Exists(s.dir(k.ID())) { // so that nothing is made where nothing is kept
		return fs.ErrNotExist
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	from := disk.Layers(s.dir(k.ID()))
	files, err := from.All()
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fs.ErrNotExist
	}
	if _, _, err := from.Check(); err != nil {
		return err
	}
	if err := from.LinkTo(ctx, to, len(files)); err != nil {
		return errors.Join(err, tree.Remove(string(to)))
	}
	return nil
}

// Keep makes the layers, which are not to be changed any more, those of a cache, in place of what it had.
func (s Store) Keep(ctx context.Context, k Key, from disk.Layers) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s.sweep()
	files, err := from.All()
	if err != nil || len(files) == 0 {
		return err
	}
	draft := s.dir(durable.HiddenName(durable.DraftPrefix, k.ID()))
	err = from.LinkTo(ctx, disk.Layers(draft), len(files))
	if err == nil {
		err = durable.WriteJSON(filepath.Join(draft, entryFile), Entry{Key: k, Kept: time.Now().UTC()})
	}
	if err == nil {
		err = durable.ReplaceDir(draft, s.dir(k.ID()))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keeping the cache %s of %s: %w", k.Target, k.Project, err), tree.Remove(draft))
	}
	return nil
}

// List are the caches, those that were kept last first. The error tells of those that cannot be read.
func (s Store) List() ([]Entry, error) {
	dirs, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []Entry
	errs := []error{err}
	for _, d := range dirs {
		if !d.IsDir() || strings.HasPrefix(d.Name(), ".") {
			continue
		}
		var e Entry
		if err := durable.ReadJSON(filepath.Join(s.dir(d.Name()), entryFile), &e); err != nil {
			errs = append(errs, err)
			continue
		}
		e.Used = disk.Layers(s.dir(d.Name())).Used()
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b Entry) int { return b.Kept.Compare(a.Kept) })
	return all, errors.Join(errs...)
}

// Remove removes a cache. Sandboxes that have begun with it keep what they have.
func (s Store) Remove(k Key) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s.sweep()
	return durable.RemoveDir(s.dir(k.ID()))
}

// sweep removes what was left by somebody who was killed. The lock is held: nobody is at it. What cannot be
// removed is tried again another time.
func (s Store) sweep() {
	dirs, _ := os.ReadDir(s.Dir)
	for _, d := range dirs {
		if strings.HasPrefix(d.Name(), durable.DraftPrefix) || strings.HasPrefix(d.Name(), durable.RemovedPrefix) {
			_ = tree.Remove(s.dir(d.Name()))
		}
	}
}
