package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxManifest bounds a manifest that is copied, in bytes. The list of packages of
// a large image has a hundredth of it.
const maxManifest = 16 << 20

// Copy copies the image in srcDir, which may belong to somebody else, to the empty
// directory dstDir, and loads it from there. Whoever can change srcDir could
// exchange a file between a check and its use, for a link to what only the caller
// can read as well: so each file is opened once, within srcDir, and what Verify
// checks is what was copied.
func Copy(ctx context.Context, srcDir, dstDir string) (*Image, error) {
	fail := func(err error) (*Image, error) {
		return nil, fmt.Errorf("the image in %s cannot be used: %w", srcDir, err)
	}
	root, err := os.OpenRoot(srcDir)
	if err != nil {
		return fail(err)
	}
	defer root.Close()
	file := filepath.Join(dstDir, ManifestFile)
	if err := copyFrom(ctx, root, ManifestFile, file, maxManifest); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("there is no %s", ManifestFile)
		}
		return fail(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return fail(err)
	}
	m, err := Parse(data)
	if err != nil {
		return fail(err)
	}
	for _, f := range m.files() {
		// One byte more than it says is enough to see that it is wrong.
		if err := copyFrom(ctx, root, f.File.File, filepath.Join(dstDir, f.File.File), f.Size+1); err != nil {
			return fail(fmt.Errorf("the %s: %w", f.role, err))
		}
	}
	img, err := load(dstDir)
	if err != nil {
		return fail(err)
	}
	return img, nil
}

// copyFrom copies up to most bytes of a regular file below root.
func copyFrom(ctx context.Context, root *os.Root, name, dst string, most int64) error {
	// Not to wait for the writer of a fifo.
	in, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", name)
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &contextReader{ctx, io.LimitReader(in, most)})
	return errors.Join(err, out.Close())
}
