package image

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// place makes the content of src available at dst, on disk for good: by a hard
// link if both are on one file system, by a copy if not.
func place(ctx context.Context, src, dst string) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o700); err != nil {
		return err
	}
	if err := os.Link(src, dst); err == nil {
		return syncFile(dst)
	}
	return copyFile(ctx, src, dst)
}

// copyFile copies the content of src to the new file dst, on disk for good.
func copyFile(ctx context.Context, src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	// The bare file, not a wrapper of it, would let the kernel copy without
	// us, but also without an end before the last byte.
	_, err = io.Copy(out, &contextReader{ctx, in})
	return errors.Join(err, out.Sync(), out.Close())
}

// syncFile writes what src's maker may have left in the page cache.
func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func syncDir(dir string) error { return syncFile(dir) }
