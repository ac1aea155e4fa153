package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// Names in the store's directory besides the images themselves. What starts
// with a dot is no image.
const (
	lockFile    = ".lock"
	defaultFile = ".default" // a reference, as SetDefault was given it; "-" and the system follow, unless it is this machine's
	newPrefix   = ".new-"    // an image that is being installed
	oldPrefix   = ".old-"    // an image that is being removed
	rootsDir    = ".roots"   // for an image, a link to what it was installed from
	originsDir  = ".origins" // for a digest of an origin, a link to the image
)

// Store is a directory of installed images. Several processes may use one:
// changes take a lock, and reading needs none, because an image appears and
// disappears in one step.
type Store struct {
	dir string
}

// OpenStore opens the store in dir, and makes the directory if it is not there.
func OpenStore(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("the directory for images cannot be made: %w", err)
	}
	return &Store{dir}, nil
}

// Dir is the store's directory.
func (s *Store) Dir() string { return s.dir }

// lock waits until no other process changes the store. The returned function
// gives the store back.
func (s *Store) lock() (unlock func(), err error) {
	f, err := flock.Wait(filepath.Join(s.dir, lockFile), nil)
	if err != nil {
		return nil, fmt.Errorf("the store of images cannot be changed: %w", err)
	}
	return func() { _ = flock.Unlock(f) }, nil // nobody could do anything about it
}

// Install verifies the image in srcDir and adds it to the store, in one step
// that an interruption cannot tear. Files are shared by hard links where the
// file system allows it, and copied otherwise; srcDir stays as it is. An image
// that is there already becomes the newest of its name again.
func (s *Store) Install(ctx context.Context, srcDir string) (*Image, error) {
	src, err := Load(srcDir)
	if err != nil {
		return nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	final := filepath.Join(s.dir, src.Ref())
	if have, err := load(final); err == nil && have.Digest == src.Digest {
		return have, have.renew()
	}
	tmp, err := os.MkdirTemp(s.dir, newPrefix)
	if err != nil {
		return nil, fmt.Errorf("installing the image %s: %w", src.Ref(), err)
	}
	defer os.RemoveAll(tmp) // nothing is left of it after the rename
	if err := s.fill(ctx, tmp, src); err != nil {
		return nil, fmt.Errorf("installing the image %s: %w", src.Ref(), err)
	}
	if err := s.discard(final); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("replacing the damaged image %s: %w", src.Ref(), err)
	}
	if err := errors.Join(syncDir(tmp), os.Rename(tmp, final), syncDir(s.dir)); err != nil {
		return nil, fmt.Errorf("installing the image %s: %w", src.Ref(), err)
	}
	return Load(final)
}

// fill puts src's files into dir and verifies them there.
func (s *Store) fill(ctx context.Context, dir string, src *Image) error {
	for _, f := range src.Manifest.files() {
		if err := place(ctx, src.path(f.File), filepath.Join(dir, f.File.File)); err != nil {
			return err
		}
	}
	// Not a link: its time says when the image was installed, and builders
	// date their files back.
	manifest := filepath.Join(dir, ManifestFile)
	if err := copyFile(ctx, filepath.Join(src.Dir, ManifestFile), manifest); err != nil {
		return err
	}
	img, err := load(dir)
	if err != nil {
		return err
	}
	if img.Digest != src.Digest {
		return errors.New("its manifest changed meanwhile")
	}
	wrong, err := img.compare(ctx)
	if wrong != "" {
		err = errors.New(wrong)
	}
	return err
}

// renew makes an image the newest of its name.
func (i *Image) renew() error {
	i.Installed = time.Now()
	return os.Chtimes(filepath.Join(i.Dir, ManifestFile), i.Installed, i.Installed)
}

// List gives all images, the newest of each name first. Damaged ones are among
// them with Broken set, so that they can be seen and removed.
func (s *Store) List() ([]*Image, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("listing the images: %w", err)
	}
	var images []*Image
	for _, e := range entries {
		named := ParseRef(e.Name())
		if named.Digest == "" || !e.IsDir() || strings.HasPrefix(named.Name, ".") {
			continue
		}
		dir := filepath.Join(s.dir, e.Name())
		img, err := load(dir)
		if err == nil && img.Ref() != e.Name() {
			err = fmt.Errorf("the manifest belongs to %s: it was changed", img.Ref())
		}
		if errors.Is(err, fs.ErrNotExist) && !exists(dir) {
			continue // removed meanwhile
		}
		if err != nil {
			img = &Image{Dir: dir, Digest: named.Digest, Manifest: Manifest{Name: named.Name}, Broken: err}
			if info, err := e.Info(); err == nil {
				img.Installed = info.ModTime()
			}
		}
		images = append(images, img)
	}
	slices.SortFunc(images, func(a, b *Image) int {
		return cmp.Or(
			strings.Compare(a.Manifest.Name, b.Manifest.Name),
			b.Installed.Compare(a.Installed),
			strings.Compare(a.Digest, b.Digest))
	})
	return images, nil
}

// Get finds an image: this machine's default one for "", the newest of a name
// for NAME, and exactly one for NAME@DIGEST, where a part of the digest
// suffices.
func (s *Store) Get(ref string) (*Image, error) {
	if ref == "" {
		var err error
		if ref, err = s.Default(HostSystem()); err != nil {
			return nil, err
		}
	}
	img, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	if img.Broken != nil {
		return nil, remedy.Add(fmt.Errorf("the image %s is damaged: %w", img.Ref(), img.Broken), remedy.ReplaceImage, img.Ref())
	}
	return img, nil
}

// find is Get for damaged images too.
func (s *Store) find(ref string) (*Image, error) {
	images, err := s.List()
	if err != nil {
		return nil, err
	}
	wanted := ParseRef(ref)
	var found []*Image
	for _, img := range images {
		if img.Manifest.Name == wanted.Name && sameDigest(img.Digest, wanted.Digest) {
			found = append(found, img)
		}
	}
	switch {
	case len(found) == 0 && len(images) == 0:
		return nil, remedy.Add(fmt.Errorf("there is no image %q, and no other either", ref), remedy.BuildImage)
	case len(found) == 0:
		return nil, fmt.Errorf("there is no image %q; there are %s", ref, strings.Join(refs(images), ", "))
	case wanted.Digest == "":
		// The newest one that can be used.
		if i := slices.IndexFunc(found, func(i *Image) bool { return i.Broken == nil }); i > 0 {
			return found[i], nil
		}
	case len(found) > 1:
		return nil, fmt.Errorf("%q could be any of %s: give more digits", ref, strings.Join(refs(found), ", "))
	}
	return found[0], nil
}

// sameDigest compares two digests, either of which may be shortened.
func sameDigest(a, b string) bool {
	n := min(len(a), len(b))
	return a[:n] == b[:n]
}

func refs(images []*Image) []string {
	names := make([]string, len(images))
	for i, img := range images {
		names[i] = img.Ref()
	}
	return names
}

// SetDefault makes ref the default image of its system. A name without a
// digest means its newest image, also of those to come.
func (s *Store) SetDefault(ref string) error {
	if ref == "" {
		return errors.New("no image is named to become the default")
	}
	img, err := s.Get(ref)
	if err != nil {
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := renameio.WriteFile(s.defaultPath(img.Manifest.System), []byte(ref+"\n"), 0o600); err != nil {
		return fmt.Errorf("storing the default image: %w", err)
	}
	return nil
}
