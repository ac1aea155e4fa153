package snapshot

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/sparse"
)

// Describe measures a file of a snapshot.
func Describe(ctx context.Context, path string) (File, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return File{}, fmt.Errorf("measuring %s: %w", path, err)
	}
	sum, err := Checksum(ctx, path)
	return File{
		Size: st.Size, Used: st.Blocks * 512, // the unit of st_blocks (stat(2))
		Checksum: sum, Modified: time.Unix(st.Mtim.Unix()).UTC(),
	}, err
}

// Checksum is the SHA-256 of the file's size and, for each piece of it that is
// not zero, of the piece's place and its own SHA-256. So it is the same whether
// zeroes are holes or not, does not read holes, and uses several processors.
func Checksum(ctx context.Context, path string) (string, error) {
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
	err = sparse.Pieces(ctx, f, info.Size(), func(at int64, data []byte) error {
		if sparse.IsZero(data) {
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
