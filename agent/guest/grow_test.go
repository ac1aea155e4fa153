//go:build linux

package guest

import (
	"encoding/binary"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSizeOfFileSystemIsReadFromItsSuperblock(t *testing.T) {
	head := make([]byte, headSize)
	binary.LittleEndian.PutUint32(head[1024+0x4:], 5)
	binary.LittleEndian.PutUint32(head[1024+0x18:], 2)
	binary.LittleEndian.PutUint32(head[1024+0x150:], 1) // means nothing without the feature "64bit"
	if blocks, size := fileSystemSize(head); blocks != 5 || size != 4096 {
		t.Errorf("%d blocks of %d bytes, want 5 of 4096", blocks, size)
	}
	binary.LittleEndian.PutUint32(head[1024+0x60:], 0x80)
	if blocks, _ := fileSystemSize(head); blocks != 1<<32+5 {
		t.Errorf("%d blocks, want 2^32 + 5", blocks)
	}
}

func TestDiskOfRightSizeIsLeftAlone(t *testing.T) {
	d := diskOf(t, 64<<20)
	if err := d.awaitSize(t.Context(), 64<<20); err != nil {
		t.Error(err)
	}
	if err := d.grow(); err != nil { // has no file system open that it could ask
		t.Error(err)
	}
}

func TestGuestWaitsForTheSizeOfItsDisk(t *testing.T) {
	d := diskOf(t, 64<<20)
	s := &service{logger: d.logger}
	if err := s.GrowDisk(t.Context(), 1); err == nil {
		t.Error("a guest without a disk has one that grew")
	}
	s.disk = d
	// What is open is no file system at all, and the request to grow it gets that far.
	var err error
	if d.top, err = os.Open(os.DevNull); err != nil {
		t.Fatal(err)
	}
	defer d.top.Close()
	grown := make(chan error, 1)
	go func() { grown <- s.GrowDisk(t.Context(), 65<<20) }()
	if err := os.Truncate(d.device, 65<<20); err != nil {
		t.Fatal(err)
	}
	if err := <-grown; !errors.Is(err, unix.ENOTTY) {
		t.Errorf("grown: %v", err)
	}
}

// diskOf is a file with a superblock that says the file's size.
func diskOf(t *testing.T, size int64) *disk {
	t.Helper()
	d := &disk{device: filepath.Join(t.TempDir(), "disk"), logger: slog.New(slog.DiscardHandler)}
	head := make([]byte, headSize)
	binary.LittleEndian.PutUint32(head[1024+0x4:], uint32(size/4096))
	binary.LittleEndian.PutUint32(head[1024+0x18:], 2)
	write(t, d.device, string(head))
	if err := os.Truncate(d.device, size); err != nil {
		t.Fatal(err)
	}
	return d
}
