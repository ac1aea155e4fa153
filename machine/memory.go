package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/qemu"
)

// newMemory makes an empty file for a guest's memory, which takes only what is
// written to it and vanishes with those who hold it. The caller closes it.
func newMemory(size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate("guest-memory", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making the guest's memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "guest-memory")
	if err := f.Truncate(size); err != nil {
		return nil, errors.Join(fmt.Errorf("making the guest's memory: %w", err), f.Close())
	}
	return f, nil
}

const (
	// memoryPiece is what is copied in one go: large enough to cost few system
	// calls, small enough for the processor's cache.
	memoryPiece = 1 << 20

	// memoryCopiers is how many pieces are copied at once. One does not use up
	// what memory can do; the guest, which stands still, needs no processor.
	memoryCopiers = 2
)

// copyMemory writes to out, which must be empty, what in holds and is not zero.
// Both are as large as each other afterwards.
func copyMemory(ctx context.Context, in, out *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if err := out.Truncate(info.Size()); err != nil {
		return err
	}
	copiers, ctx := errgroup.WithContext(ctx)
	pieces := make(chan int64)
	for range memoryCopiers {
		copiers.Go(func() error { return copyPieces(ctx, in, out, pieces) })
	}
	err = eachPiece(ctx, in, info.Size(), func(at int64) error {
		select {
		case pieces <- at:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	close(pieces)
	return errors.Join(copiers.Wait(), err)
}

// eachPiece calls do for each piece of the file that is not a hole.
func eachPiece(ctx context.Context, f *os.File, size int64, do func(at int64) error) error {
	next := int64(0) // the first piece that was not done
	return eachExtent(ctx, f, size, func(start, end int64) error {
		for at := max(next, start-start%memoryPiece); at < end; at += memoryPiece {
			if err := do(at); err != nil {
				return err
			}
			next = at + memoryPiece
		}
		return nil
	})
}

func copyPieces(ctx context.Context, in, out *os.File, pieces <-chan int64) error {
	buf := make([]byte, memoryPiece)
	for at := range pieces {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := in.ReadAt(buf, at)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("reading the guest's memory: %w", err)
		}
		if err := writeData(out, buf[:n], at); err != nil {
			return fmt.Errorf("writing the guest's memory: %w", err)
		}
	}
	return nil
}

// memoryPage is the unit in which zeroes are left out, the smallest that takes
// space in a file or in memory.
const memoryPage = 4 << 10

var zeroPage [memoryPage]byte

// writeData writes the runs of pages in data that are not zero.
func writeData(out *os.File, data []byte, at int64) error {
	page := func(i int) []byte { return data[i:min(i+memoryPage, len(data))] }
	zero := func(i int) bool { p := page(i); return bytes.Equal(p, zeroPage[:len(p)]) }
	for i := 0; i < len(data); {
		if zero(i) {
			i += memoryPage
			continue
		}
		start := i
		for i < len(data) && !zero(i) {
			i += memoryPage
		}
		if _, err := out.WriteAt(data[start:min(i, len(data))], at+int64(start)); err != nil {
			return err
		}
	}
	return nil
}

// passMemory makes the guest's memory, and appends it to the files that QEMU is
// to inherit.
func (v *supervisor) passMemory(ctx context.Context, user *qemu.User, vm *qemu.Config, files []*os.File) ([]*os.File, error) {
	vm.MemoryFD = firstFD + len(files)
	var source *os.File
	if v.saved != nil && v.saved.Memory != nil {
		var err error
		if source, err = os.Open(filepath.Join(v.saved.dir, memoryFile)); err != nil {
			return files, err
		}
		// Who starts from the same memory can have it in common, unless there
		// is a file server, which must see what the guest changes.
		if len(vm.Shares) == 0 {
			vm.MemoryPrivate = true
			return append(files, source), qemu.Give(user, source)
		}
		defer source.Close()
	}
	memory, err := newMemory(vm.MemoryBytes())
	if err != nil {
		return files, err
	}
	v.forgetMemory()
	v.memory = memory
	theirs, err := duplicate(memory)
	if err != nil {
		return files, err
	}
	if source == nil {
		return append(files, theirs), nil
	}
	return append(files, theirs), v.fill(ctx, source)
}

// firstFD is the number that QEMU gives to the first file that it inherits.
const firstFD = 3

// fill begins to copy what was saved to the guest's memory, while QEMU starts.
func (v *supervisor) fill(ctx context.Context, source *os.File) error {
	from, err := duplicate(source)
	if err != nil {
		return err
	}
	to, err := duplicate(v.memory)
	if err != nil {
		return errors.Join(err, from.Close())
	}
	filled := make(chan error, 1)
	v.saved.filled = filled
	go func() {
		err := copyMemory(ctx, from, to)
		filled <- errors.Join(err, from.Close(), to.Close())
	}()
	return nil
}

// forgetMemory lets go of the guest's memory, if it was kept.
func (v *supervisor) forgetMemory() {
	if v.memory != nil {
		v.memory.Close()
		v.memory = nil
	}
}

// duplicate returns another descriptor of the file, which the caller closes.
func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("keeping %s open: %w", f.Name(), err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
