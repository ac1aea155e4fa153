package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent/boot"
)

// Image is an image on disk.
type Image struct {
	Dir       string // absolute
	Digest    string // sha256 of the manifest, hexadecimal
	Manifest  Manifest
	Installed time.Time // when its directory was made
	// Broken is why the image cannot be used. Only List gives such images;
	// then Manifest may be empty, and Digest has 12 digits only.
	Broken error
}

// digestLength is how many digits of the digest are in names and references.
const digestLength = 12

// Load reads the image in dir and checks everything but the files' digests,
// which Verify does.
func Load(dir string) (*Image, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	img, err := load(dir)
	if err != nil {
		return nil, fmt.Errorf("the image in %s cannot be used: %w", dir, err)
	}
	return img, nil
}

func load(dir string) (*Image, error) {
	file := filepath.Join(dir, ManifestFile)
	data, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no %s", ManifestFile)
	case errors.Is(err, unix.ENOTDIR):
		return nil, errors.New("it is no directory")
	case err != nil:
		return nil, err
	}
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	m, err := Parse(data)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	img := &Image{Dir: dir, Digest: hex.EncodeToString(sum[:]), Manifest: m, Installed: info.ModTime()}
	for _, f := range m.files() {
		if err := img.checkFile(f); err != nil {
			return nil, err
		}
	}
	return img, nil
}

func (i *Image) checkFile(f roleFile) error {
	info, err := os.Lstat(i.path(f.File))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the %s %s is missing", f.role, f.File.File)
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("the %s %s is not a regular file", f.role, f.File.File)
	}
	// A directory on the way may be a link to elsewhere.
	real, err := filepath.EvalSymlinks(i.path(f.File))
	if err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(i.Dir)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, real); err != nil || rel != f.File.File {
		return fmt.Errorf("the %s %s leads out of the image's directory", f.role, f.File.File)
	}
	if info.Size() != f.Size {
		return fmt.Errorf("the %s %s has %d bytes instead of %d: it is incomplete or was changed", f.role, f.File.File, info.Size(), f.Size)
	}
	return nil
}

// Verify reads every file and compares it with the manifest.
func (i *Image) Verify(ctx context.Context) error {
	wrong, err := i.compare(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("verifying the image %s: %w", i.Ref(), err)
	case wrong != "":
		return fmt.Errorf("the image %s is damaged: %s; remove the image and build it again", i.Ref(), wrong)
	}
	return nil
}

// compare is Verify. wrong says which file is not what the manifest says.
func (i *Image) compare(ctx context.Context) (wrong string, err error) {
	for _, f := range i.Manifest.files() {
		sum, _, err := hashFile(ctx, i.path(f.File))
		if err != nil {
			return "", err
		}
		if sum != f.SHA256 {
			return fmt.Sprintf("the %s %s has sha256 %s instead of %s", f.role, f.File.File, sum, f.SHA256), nil
		}
	}
	return "", nil
}

// Kernel is the absolute path of the kernel.
func (i *Image) Kernel() string { return i.path(i.Manifest.Kernel) }

// Initrd is the absolute path of the initial RAM disk.
func (i *Image) Initrd() string { return i.path(i.Manifest.Initrd) }

// Store is the absolute path of the read-only file system.
func (i *Image) Store() string { return i.path(i.Manifest.Store.File) }

// Size is the size of all files together, in bytes.
func (i *Image) Size() int64 {
	var n int64
	for _, f := range i.Manifest.files() {
		n += f.Size
	}
	return n
}

// Ref names the image for people: its name, @, and the first digits of its digest.
func (i *Image) Ref() string {
	if i.Manifest.Name == "" {
		return filepath.Base(i.Dir)
	}
	return i.Manifest.Name + "@" + i.Digest[:digestLength]
}

// Exact is the reference of this image and of no other, ever.
func (i *Image) Exact() Ref { return Ref{Name: i.Manifest.Name, Digest: i.Digest} }

func (i *Image) path(f File) string { return filepath.Join(i.Dir, f.File) }

// Describe fills in the size and digest of the file called name in dir, for
// makers of images.
func Describe(ctx context.Context, dir, name string) (File, error) {
	sum, size, err := hashFile(ctx, filepath.Join(dir, name))
	return File{File: name, Size: size, SHA256: sum}, err
}

// Boot is what the agent in the guest is told about the image: a part of the
// manifest, and setup, which is nobody else's business.
func (m Manifest) Boot(setup boot.Setup) boot.Image {
	return boot.Image{
		Store: boot.Store{Format: m.Store.Format, Device: storeDevice},
		Init:  m.Init, User: boot.User(m.User), Readiness: boot.Readiness(m.Readiness), Setup: setup,
	}
}

// storeDevice is the first virtio disk: the host attaches the store first.
const storeDevice = "/dev/vda"

// hashFile gives the sha256 and the size of a file.
func hashFile(ctx context.Context, name string) (sum string, size int64, err error) {
	f, err := os.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	size, err = io.Copy(h, &contextReader{ctx, f})
	return hex.EncodeToString(h.Sum(nil)), size, err
}

// contextReader ends a long copy when its context does.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.r.Read(p)
}
