//go:build linux

package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
	"unsafe"
)

// ext4ResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64) of the kernel's
// uapi/linux/ext4.h. Its argument is the new number of blocks.
const ext4ResizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16

const (
	// growPatience is for the kernel to hear of its disk's new size, which
	// takes an interrupt and a work queue.
	growPatience = 10 * time.Second

	// growLook is how often it is asked: no file of the kernel's tells when a
	// device's size has changed.
	growLook = 10 * time.Millisecond
)

// GrowDisk implements [Controller].
func (s *service) GrowDisk(ctx context.Context, bytes int64) error {
	s.mu.Lock()
	disk := s.disk
	s.mu.Unlock()
	if disk == nil {
		return errors.New("this guest has no disk")
	}
	if err := disk.awaitSize(ctx, bytes); err != nil {
		return err
	}
	return disk.grow()
}

// awaitSize returns when the device has that size, or a larger one.
func (d *disk) awaitSize(ctx context.Context, bytes int64) error {
	ctx, cancel := context.WithTimeout(ctx, growPatience)
	defer cancel()
	look := time.NewTicker(growLook)
	defer look.Stop()
	for {
		size, err := deviceSize(d.device)
		if err != nil || size >= bytes {
			return err
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("the disk %s has %d bytes and not %d: %w", d.device, size, bytes, ctx.Err())
		}
	}
}

// grow lets the file system, which is in use, have all of the device. The
// kernel does it, so the image needs no program for it.
func (d *disk) grow() error {
	head, err := readHead(d.device)
	if err != nil {
		return fmt.Errorf("cannot read the disk: %w", err)
	}
	size, err := deviceSize(d.device)
	if err != nil {
		return err
	}
	blocks, blockSize := fileSystemSize(head)
	wanted := uint64(size) / blockSize
	if wanted <= blocks {
		return nil
	}
	d.logger.Info("the file system of the disk grows", "device", d.device, "from", blocks, "to", wanted, "blockSize", blockSize)
	if err := ioctl(d.top, ext4ResizeFS, unsafe.Pointer(&wanted)); err != nil {
		return fmt.Errorf("the file system on %s cannot grow from %d to %d blocks (the console has the kernel's reason): %w", d.device, blocks, wanted, err)
	}
	return nil
}

// fileSystemSize reads the number of blocks and their size in bytes from a
// superblock, see judge.
func fileSystemSize(head []byte) (blocks, blockSize uint64) {
	const (
		blocksOffset     = 1024 + 0x4
		blockSizeOffset  = 1024 + 0x18 // as the power of 2 beyond 1024
		featuresOffset   = 1024 + 0x60
		highBlocksOffset = 1024 + 0x150
		feature64bit     = 0x80
	)
	blocks = uint64(binary.LittleEndian.Uint32(head[blocksOffset:]))
	if binary.LittleEndian.Uint32(head[featuresOffset:])&feature64bit != 0 {
		blocks |= uint64(binary.LittleEndian.Uint32(head[highBlocksOffset:])) << 32
	}
	return blocks, 1024 << (binary.LittleEndian.Uint32(head[blockSizeOffset:]) & 0xf)
}

func deviceSize(device string) (int64, error) {
	f, err := os.Open(device)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return f.Seek(0, io.SeekEnd)
}
