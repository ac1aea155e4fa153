package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/sparse"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
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
	err = sparse.Pieces(ctx, in, info.Size(), func(at int64, data []byte) error { return writeData(out, data, at) })
	if err != nil {
		return fmt.Errorf("copying the guest's memory: %w", err)
	}
	return nil
}

// memoryPage is the unit in which zeroes are left out, the smallest that takes
// space in a file or in memory.
const memoryPage = 4 << 10

// writeData writes the runs of pages in data that are not zero.
func writeData(out *os.File, data []byte, at int64) error {
	zero := func(i int) bool { return sparse.IsZero(data[i:min(i+memoryPage, len(data))]) }
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

// passMemory makes the guest's memory, and adds it to the files that QEMU is to
// inherit.
func (v *supervisor) passMemory(ctx context.Context, vm *qemu.Config, files *qemu.Files) error {
	saved := v.saved != nil && v.saved.Memory != nil
	// Who starts from the same memory can have it in common, unless there is a
	// file server, which must see what the guest changes.
	if saved && len(vm.Shares) == 0 {
		source, err := v.saved.openMemory()
		if err != nil {
			return err
		}
		vm.MemoryFD, vm.MemoryPrivate = files.Add(source), true
		return nil
	}
	memory, err := newMemory(vm.MemoryBytes())
	if err != nil {
		return err
	}
	v.forgetMemory()
	v.memory = memory
	theirs, err := duplicate(memory)
	if err != nil {
		return err
	}
	vm.MemoryFD = files.Add(theirs)
	if saved {
		return v.saved.fill(ctx, memory)
	}
	return nil
}

func (s *saved) openMemory() (*os.File, error) {
	return os.Open(filepath.Join(s.dir, snapshot.MemoryFile))
}

// fill begins to copy what was saved to the guest's memory, while QEMU starts.
func (s *saved) fill(ctx context.Context, memory *os.File) error {
	source, err := s.openMemory()
	if err != nil {
		return err
	}
	filled := make(chan error, 1)
	s.filled = filled
	go func() {
		err := copyMemory(ctx, source, memory)
		filled <- errors.Join(err, source.Close())
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
