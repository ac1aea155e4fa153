package machine

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/internal/sparse"
)

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
	err = sparse.Clone(ctx, in, out)
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(fmt.Errorf("copying %s: %w", src, err), os.Remove(dst))
	}
	return nil
}

// syncPath puts what is in a file or directory on disk for good.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// checksum is the SHA-256 of the file's size and, for each piece of it that is
// not zero, of the piece's place and its own SHA-256. So it is the same whether
// zeroes are holes or not, does not read holes, and uses several processors.
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
	var mu sync.Mutex
	sums := map[int64][sha256.Size]byte{}
	err = eachPiece(ctx, f, info.Size(), func(at int64, data []byte) error {
		if isZero(data) {
			return nil
		}
		sum := sha256.Sum256(data)
		mu.Lock()
		defer mu.Unlock()
		sums[at] = sum
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", path, err)
	}
	whole := sha256.New()
	number := func(n int64) { _ = binary.Write(whole, binary.LittleEndian, n) } // a hash takes everything
	number(info.Size())
	for _, at := range slices.Sorted(maps.Keys(sums)) {
		number(at)
		sum := sums[at]
		whole.Write(sum[:])
	}
	return hex.EncodeToString(whole.Sum(nil)), nil
}

const (
	// piece is what is copied or looked at in one go: large enough to cost few
	// system calls, small enough for the processor's cache.
	piece = 1 << 20

	// pieceWorkers is how many pieces are worked on at once. One does not use up
	// what memory can do.
	pieceWorkers = 2
)

// eachPiece calls do, several times at once, for each piece of the file that is
// not a hole altogether, until one call fails.
func eachPiece(ctx context.Context, f *os.File, size int64, do func(at int64, data []byte) error) error {
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
	err := sparse.Extents(ctx, f, size, func(start, end int64) error {
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

func isZero(data []byte) bool { return bytes.Equal(data, zeroes[:len(data)]) }
