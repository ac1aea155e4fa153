package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// Removed is an image, or what was left of one, that GC removed.
type Removed struct {
	Ref    string
	Reason string
	Size   int64 // bytes of its files; those that other images share stay
}

// Remove removes the image that ref names, unless it is one of inUse, the
// digests of the images that sandboxes use.
func (s *Store) Remove(ref string, inUse []string) error {
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if ParseRef(ref).Digest == "" {
		if err := s.unambiguous(ref); err != nil {
			return err
		}
	}
	img, err := s.find(ref)
	if err != nil {
		return err
	}
	if used(img, inUse) {
		return remedy.Add(fmt.Errorf("the image %s is used by a sandbox", img.Ref()), remedy.RemoveItsUsers)
	}
	if err := s.discard(img.Dir); err != nil {
		return fmt.Errorf("removing the image %s: %w", img.Ref(), err)
	}
	return s.tidy()
}

// unambiguous refuses a bare name of several images: which one is meant must
// not depend on which is the newest.
func (s *Store) unambiguous(name string) error {
	images, err := s.List()
	if err != nil {
		return err
	}
	images = slices.DeleteFunc(images, func(i *Image) bool { return i.Manifest.Name != name })
	if len(images) > 1 {
		return fmt.Errorf("%q could be any of %s: say which", name, strings.Join(refs(images), ", "))
	}
	return nil
}

// GC removes what nobody can miss: damaged images, images of which there is a
// newer one of the same name, and what interrupted commands left. It keeps
// those in use and the default ones.
func (s *Store) GC(inUse []string) ([]Removed, error) {
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	removed, err := s.sweep()
	if err != nil {
		return removed, err
	}
	images, err := s.List()
	if err != nil {
		return removed, err
	}
	newest := map[string]*Image{}
	for _, img := range images {
		if img.Broken == nil && newest[img.Manifest.Name] == nil {
			newest[img.Manifest.Name] = img
		}
	}
	for _, img := range images {
		reason := ""
		switch successor := newest[img.Manifest.Name]; {
		case s.isDefault(img) || used(img, inUse):
		case img.Broken != nil:
			reason = "it is damaged"
		case successor != img:
			reason = "there is a newer one, " + successor.Ref()
		}
		if reason == "" {
			continue
		}
		if err := s.discard(img.Dir); err != nil {
			return removed, fmt.Errorf("removing the image %s: %w", img.Ref(), err)
		}
		removed = append(removed, Removed{img.Ref(), reason, img.Size()})
	}
	return removed, s.tidy()
}

// sweep removes what interrupted commands left. Whoever holds the lock knows
// that nobody works on them.
func (s *Store) sweep() ([]Removed, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, err
	}
	var removed []Removed
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), newPrefix) && !strings.HasPrefix(e.Name(), oldPrefix) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return removed, fmt.Errorf("removing what an interrupted command left: %w", err)
		}
		removed = append(removed, Removed{Ref: e.Name(), Reason: "an interrupted command left it"})
	}
	return removed, nil
}

// discard makes an image disappear in one step, then deletes its files.
func (s *Store) discard(dir string) error {
	if _, err := os.Lstat(dir); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(s.dir, oldPrefix)
	if err != nil {
		return err
	}
	if err := os.Rename(dir, filepath.Join(tmp, filepath.Base(dir))); err != nil {
		return errors.Join(err, os.Remove(tmp))
	}
	return os.RemoveAll(tmp)
}

func used(img *Image, inUse []string) bool {
	return slices.ContainsFunc(inUse, func(d string) bool { return d != "" && sameDigest(img.Digest, d) })
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}
