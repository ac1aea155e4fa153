// Package sparse copies files so that holes stay holes.
package sparse

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"
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

const (
	// piece is what is copied or looked at in one go: large enough to cost few
	// system calls, small enough for the processor's cache.
	piece = 1 << 20

	// pieceWorkers is how many pieces are worked on at once. One does not use up
	// what memory can do.
	pieceWorkers = 2
)

// Pieces calls do, several times at once, for each piece of the file that is
// not a hole altogether, at most 1 MiB, until one call fails. The data is the caller's
// again when do returns.
func Pieces(ctx context.Context, f *os.File, size int64, do func(at int64, data []byte) error) error {
	workers, ctx := errgroup.WithContext(ctx)
	places := make(chan int64)
	for range pieceWorkers {
		workers.Go(func() error {
			buf := make([]byte, piece)
			for at := range places {
				n, err := f.ReadAt(buf, at)
				if err != nil && !errors.Is(err, io.EOF) {
					return err
				}
				if err := do(at, buf[:n]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	next := int64(0) // the first piece that was not handed out
	err := Extents(ctx, f, size, func(start, end int64) error {
		for at := max(next, start-start%piece); at < end; at += piece {
			select {
			case places <- at:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			next = at + piece
		}
		return nil
	})
	close(places)
	// What a worker says is the reason, and what the loop says its consequence.
	return cmp.Or(workers.Wait(), err)
}

var zeroes [piece]byte

// IsZero tells whether there is nothing but zeroes in data, which is at most as long
// as what Pieces hands out.
func IsZero(data []byte) bool { return bytes.Equal(data, zeroes[:len(data)]) }
