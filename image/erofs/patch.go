package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	goerofs "github.com/erofs/go-erofs"
)

// Offsets and sizes of the on-disk format, from the kernel's documentation
// (filesystems/erofs) and fs/erofs/erofs_fs.h.
const (
	superOffset     = 1024
	superBlockBits  = superOffset + 12
	superMetaBlock  = superOffset + 40
	superVolumeName = superOffset + 64
	slotSize        = 32 // an inode's number is its offset in these
	direntSize      = 12
	layoutPlain     = 0
	layoutInline    = 2
)

// patcher changes single fields of a finished file system.
type patcher struct {
	f         *os.File
	fs        fs.FS
	blockSize int64
	meta      int64 // offset of inode 0
}

func newPatcher(f *os.File) (*patcher, error) {
	fsys, err := goerofs.Open(f)
	if err != nil {
		return nil, fmt.Errorf("reading the store back: %w", err)
	}
	var b [64]byte
	if _, err := f.ReadAt(b[:], superOffset); err != nil {
		return nil, err
	}
	p := &patcher{f: f, fs: fsys, blockSize: 1 << b[superBlockBits-superOffset]}
	p.meta = int64(binary.LittleEndian.Uint32(b[superMetaBlock-superOffset:])) * p.blockSize
	return p, nil
}

func (p *patcher) label(label string) error {
	var b [16]byte
	copy(b[:], label)
	_, err := p.f.WriteAt(b[:], superVolumeName)
	return err
}

// relink makes the directory entry of name point to target's inode.
func (p *patcher) relink(name, target string) error {
	info, err := fs.Stat(p.fs, strings.TrimPrefix(target, "/"))
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*goerofs.Stat)
	if !ok {
		return errors.New("the reader does not tell inode numbers")
	}
	start, size, err := p.directory(path.Dir(name))
	if err != nil {
		return err
	}
	data := make([]byte, size)
	if _, err := p.f.ReadAt(data, start); err != nil {
		return err
	}
	at := findEntry(data, int(p.blockSize), path.Base(name))
	if at < 0 {
		return errors.New("it is not in its directory")
	}
	var nid [8]byte
	binary.LittleEndian.PutUint64(nid[:], uint64(stat.Ino))
	if _, err := p.f.WriteAt(nid[:], start+int64(at)); err != nil {
		return err
	}
	// A link may name a device or a symlink as well.
	_, err = p.f.WriteAt([]byte{direntType(info.Mode())}, start+int64(at)+10)
	return err
}

// directory finds where the entries of a directory are stored.
func (p *patcher) directory(name string) (start, size int64, err error) {
	rel := strings.TrimPrefix(name, "/")
	if rel == "" {
		rel = "."
	}
	info, err := fs.Stat(p.fs, rel)
	if err != nil {
		return 0, 0, err
	}
	stat, ok := info.Sys().(*goerofs.Stat)
	if !ok {
		return 0, 0, errors.New("the reader does not tell inode numbers")
	}
	inode := p.meta + stat.Ino*slotSize
	var b [64]byte
	if _, err := p.f.ReadAt(b[:], inode); err != nil {
		return 0, 0, err
	}
	le := binary.LittleEndian
	format := le.Uint16(b[0:])
	header := int64(32)
	size = int64(le.Uint32(b[8:]))
	if format&1 != 0 {
		header = 64
		size = int64(le.Uint64(b[8:]))
	}
	if n := le.Uint16(b[2:]); n > 0 {
		header += 12 + 4*int64(n-1)
	}
	switch layout := format >> 1 & 7; layout {
	case layoutPlain:
		return int64(le.Uint32(b[16:])) * p.blockSize, size, nil
	case layoutInline:
		return inode + header, size, nil
	default:
		return 0, 0, fmt.Errorf("directory %s has the unexpected layout %d", name, layout)
	}
}

// findEntry returns the offset in data of the directory entry called name, or
// -1. Each block starts with its entries, followed by their names.
func findEntry(data []byte, blockSize int, name string) int {
	for base := 0; base < len(data); base += blockSize {
		block := data[base:min(base+blockSize, len(data))]
		if len(block) < direntSize {
			break
		}
		n := int(binary.LittleEndian.Uint16(block[8:])) / direntSize
		for i := range n {
			from, to := nameAt(block, i), len(block)
			if i+1 < n {
				to = nameAt(block, i+1)
			}
			if from > to || to > len(block) {
				return -1
			}
			if string(bytes.TrimRight(block[from:to], "\x00")) == name {
				return base + i*direntSize
			}
		}
	}
	return -1
}

func nameAt(block []byte, i int) int {
	return int(binary.LittleEndian.Uint16(block[i*direntSize+8:]))
}

// direntType is the FT_ number of a file's kind.
func direntType(m fs.FileMode) byte {
	switch {
	case m&fs.ModeSymlink != 0:
		return 7
	case m&fs.ModeSocket != 0:
		return 6
	case m&fs.ModeNamedPipe != 0:
		return 5
	case m&fs.ModeCharDevice != 0:
		return 3
	case m&fs.ModeDevice != 0:
		return 4
	default:
		return 1
	}
}
