package machine

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// eachExtent calls do for each part of the file that is not a hole.
func eachExtent(ctx context.Context, f *os.File, size int64, do func(start, end int64) error) error {
	for end := int64(0); end < size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		start, err := unix.Seek(int(f.Fd()), end, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // only a hole is left
		}
		if err == nil {
			end, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
		}
		if err != nil {
			return fmt.Errorf("looking for the data in %s: %w", f.Name(), err)
		}
		if err := do(start, end); err != nil {
			return err
		}
	}
	return nil
}

// cloneFile makes dst, which must not exist, a copy of src that shares its
// blocks where the file system can do that, and its holes elsewhere. It is not
// on disk for good before syncPath.
func cloneFile(ctx context.Context, src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(dst, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		err = copyExtents(ctx, in, out)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("copying %s: %w", src, err), os.Remove(dst))
	}
	return nil
}

func copyExtents(ctx context.Context, in, out *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	err = eachExtent(ctx, in, info.Size(), func(start, end int64) error {
		if _, err := in.Seek(start, io.SeekStart); err != nil {
			return err
		}
		if _, err := out.Seek(start, io.SeekStart); err != nil {
			return err
		}
		_, err := io.CopyN(out, in, end-start)
		return err
	})
	return errors.Join(err, out.Truncate(info.Size()))
}

// syncPath puts what is in a file or directory on disk for good.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checksumBlock is the unit in which checksum looks for zeroes.
const checksumBlock = 64 << 10

// checksum is the SHA-256 of the file's size and of all its blocks that are
// not zero, each after its place. So it is the same whether zeroes are holes
// or not, and does not read holes.
func checksum(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	number := func(n int64) { _ = binary.Write(sum, binary.LittleEndian, n) } // a hash takes everything
	number(info.Size())
	block, zero := make([]byte, checksumBlock), make([]byte, checksumBlock)
	next := int64(0) // the first block that was not looked at
	err = eachExtent(ctx, f, info.Size(), func(start, end int64) error {
		for at := max(next, start-start%checksumBlock); at < end; at += checksumBlock {
			n, err := f.ReadAt(block, at)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			if !bytes.Equal(block[:n], zero[:n]) {
				number(at)
				sum.Write(block[:n])
			}
			next = at + checksumBlock
		}
		return ctx.Err()
	})
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
