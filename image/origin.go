package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// RootLink is where the builder of an installed image may put a symbolic link
// to what it was installed from. The link goes when the image is removed; Nix
// keeps what such a link, as one of its garbage-collection roots, leads to.
func (s *Store) RootLink(img *Image) (string, error) {
	dir := filepath.Join(s.dir, rootsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("keeping what the image %s was built from: %w", img.Ref(), err)
	}
	return filepath.Join(dir, filepath.Base(img.Dir)), nil
}

// SetOrigin remembers that an installed image came from origin: words of its
// builder's choice, which are the same when the same is asked for again.
func (s *Store) SetOrigin(origin string, img *Image) error {
	link := s.originLink(origin)
	err := os.MkdirAll(filepath.Dir(link), 0o700)
	if err == nil {
		err = renameio.Symlink(filepath.Join("..", filepath.Base(img.Dir)), link)
	}
	if err != nil {
		return fmt.Errorf("remembering where the image %s came from: %w", img.Ref(), err)
	}
	return nil
}

// ByOrigin returns the image that came from origin last, or nil if there is
// none (any more).
func (s *Store) ByOrigin(origin string) (*Image, error) {
	target, err := os.Readlink(s.originLink(origin))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("finding the image from %s: %w", origin, err)
	}
	ref := filepath.Base(target)
	if !exists(filepath.Join(s.dir, ref)) {
		return nil, nil
	}
	return s.Get(ref)
}

func (s *Store) originLink(origin string) string {
	sum := sha256.Sum256([]byte(origin))
	return filepath.Join(s.dir, originsDir, hex.EncodeToString(sum[:]))
}

// tidy removes the links of images that are gone. The caller holds the lock.
func (s *Store) tidy() error {
	var errs []error
	for _, dir := range []string{rootsDir, originsDir} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		errs = append(errs, err)
		for _, e := range entries {
			link, ref := filepath.Join(s.dir, dir, e.Name()), e.Name()
			if dir == originsDir {
				target, err := os.Readlink(link)
				if err != nil {
					errs = append(errs, err)
					continue
				}
				ref = filepath.Base(target)
			}
			if !exists(filepath.Join(s.dir, ref)) {
				errs = append(errs, os.Remove(link))
			}
		}
	}
	return errors.Join(errs...)
}
