// Package sparse copies files so that holes stay holes.
package sparse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Extents calls do for each part of the file's first size bytes that is not a
// hole. Where the file system does not know its holes there is one part.
func Extents(ctx context.Context, f *os.File, size int64, do func(start, end int64) error) error {
	for end := int64(0); end < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) || err == nil && start >= size {
			return nil // only a hole is left
		}
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		}
		if err != nil {
			return fmt.Errorf("looking for the data in %s: %w", f.Name(), err)
		}
		end = min(end, size)
		if err := do(start, end); err != nil {
			return err
		}
	}
	return nil
}

// Clone gives out, which is empty, the content of in. They share their blocks
// where the file system can do that, and their holes elsewhere.
func Clone(ctx context.Context, in, out *os.File) error {
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		return nil
	}
	info, err := in.Stat()
	if err != nil {
		return err
	}
	written := int64(0)
	err = Extents(ctx, in, info.Size(), func(start, end int64) error {
		written = end
		if _, err := in.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(out, in, end-start)
		return err
	})
	if err == nil && written < info.Size() {
		err = out.Truncate(info.Size())
	}
	return err
}
