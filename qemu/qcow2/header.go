package qcow2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// header is the beginning of an image, in big endian.
type header struct {
	Magic                 uint32
	Version               uint32
	BackingOffset         uint64
	BackingSize           uint32
	ClusterBits           uint32
	Size                  uint64 // what the guest sees, in bytes
	CryptMethod           uint32
	L1Size                uint32 // in entries of 8 bytes
	L1Offset              uint64
	RefcountTableOffset   uint64
	RefcountTableClusters uint32
	Snapshots             uint32
	SnapshotsOffset       uint64
	// From version 3 on.
	Incompatible  uint64
	Compatible    uint64
	Autoclear     uint64
	RefcountOrder uint32
	Length        uint32
}

const (
	magic = 'Q'<<24 | 'F'<<16 | 'I'<<8 | 0xfb

	// headerLength is that of header, and the least that version 3 allows.
	headerLength = 104

	// headerLengthV2 is where version 2 ends.
	headerLengthV2 = 72

	// maxSize is more than any file system of a guest of ours can use (ext4 with blocks of 4 KiB: 16 TiB), and
	// far from what overflows.
	maxSize = 64 << 40

	// The largest tables that QEMU opens, in bytes (QCOW_MAX_L1_SIZE, QCOW_MAX_REFTABLE_SIZE), and internal
	// snapshots (QCOW_MAX_SNAPSHOTS).
	maxL1             = 32 << 20
	maxRefcountTable  = 8 << 20
	maxInnerSnapshots = 65536

	// maxOffset ends the part of an entry in which an offset is.
	maxOffset = 1 << 56

	// minClusterBits and maxClusterBits are what QEMU opens.
	minClusterBits = 9
	maxClusterBits = 21

	// maxBackingName is the longest name of an image below.
	maxBackingName = 1023
)

// The incompatible features: who does not know one must not open the image.
const (
	featureDirty        = 1 << 0 // the reference counts are not up to date: QEMU repairs them when it opens it
	featureCorrupt      = 1 << 1 // QEMU has found that the image makes no sense
	featureExternalData = 1 << 2 // the data is in another file
)

// autoclearRawData goes with featureExternalData.
const autoclearRawData = 1 << 1

// The header extensions that matter.
const (
	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionExternalData  = 0x44415441
	extensionEncryption    = 0x0537be77
)

// HeaderError says why an image is not opened: it is none of those that Check accepts.
type HeaderError struct{ Reason string }

func (e *HeaderError) Error() string { return e.Reason }

func refuse(format string, args ...any) error { return &HeaderError{fmt.Sprintf(format, args...)} }

// Check judges an image's header, and returns how large the disk is that it holds, in bytes. below is the name that it
// must have for the image below it, without a directory, or empty for one that must have none. What it refuses is
// a *HeaderError, and every other error one of reading.
func Check(r io.ReaderAt, below string) (size int64, err error) {
	h, err := readHeader(r)
	if err != nil {
		return 0, err
	}
	if err := h.check(); err != nil {
		return 0, err
	}
	rest, err := h.readRest(r)
	if err != nil {
		return 0, err
	}
	format, err := backingFormat(rest)
	if err != nil {
		return 0, err
	}
	if err := h.checkBacking(r, format, below); err != nil {
		return 0, err
	}
	return int64(h.Size), nil
}

func readHeader(r io.ReaderAt) (h header, err error) {
	buf := make([]byte, headerLength)
	n, err := r.ReadAt(buf, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("reading the header of a disk image: %w", err)
	}
	if n < len(buf) {
		return h, refuse("it is too short for a qcow2 image")
	}
	_, err = binary.Decode(buf, binary.BigEndian, &h)
	if err == nil && h.Version == 2 { // what follows is not the header's any more
		h.Incompatible, h.Compatible, h.Autoclear, h.RefcountOrder, h.Length = 0, 0, 0, 4, headerLengthV2
	}
	return h, err
}

// check judges the numbers.
func (h header) check() error {
	if h.Magic != magic {
		return refuse("it is no qcow2 image")
	}
	if h.Version != 2 && h.Version != 3 {
		return refuse("it is a qcow2 image of version %d, which is not known", h.Version)
	}
	if err := h.checkFeatures(); err != nil {
		return err
	}
	if h.ClusterBits < minClusterBits || h.ClusterBits > maxClusterBits {
		return refuse("its clusters have 2^%d bytes", h.ClusterBits)
	}
	cluster := uint64(1) << h.ClusterBits
	if h.Version == 3 && (h.Length < headerLength || h.Length%8 != 0 || uint64(h.Length) > cluster) {
		return refuse("its header has %d bytes", h.Length)
	}
	if h.Size == 0 || h.Size > maxSize || h.Size%512 != 0 {
		return refuse("it holds a disk of %d bytes", h.Size)
	}
	if h.RefcountOrder > 6 {
		return refuse("its reference counts have 2^%d bits", h.RefcountOrder)
	}
	// A table of the second level is a cluster, with an entry of 8 bytes for each cluster of data.
	if perEntry := cluster / 8 * cluster; uint64(h.L1Size)*8 > maxL1 || uint64(h.L1Size) < (h.Size+perEntry-1)/perEntry {
		return refuse("its table has %d entries for a disk of %d bytes", h.L1Size, h.Size)
	}
	if n := uint64(h.RefcountTableClusters); n == 0 || n*cluster > maxRefcountTable {
		return refuse("its table of reference counts has %d clusters", n)
	}
	if h.Snapshots > maxInnerSnapshots {
		return refuse("it has %d internal snapshots", h.Snapshots)
	}
	for what, offset := range map[string]uint64{"table": h.L1Offset, "table of reference counts": h.RefcountTableOffset} {
		if offset < cluster || offset%cluster != 0 || offset >= maxOffset {
			return refuse("its %s is at byte %d", what, offset)
		}
	}
	return nil
}

func (h header) checkFeatures() error {
	switch {
	case h.Incompatible&featureExternalData != 0 || h.Autoclear&autoclearRawData != 0:
		return refuse("its header says that the data is in another file")
	case h.CryptMethod != 0:
		return refuse("its header says that it is encrypted")
	case h.Incompatible&featureCorrupt != 0:
		return refuse("QEMU has found it damaged, and marked it so")
	case h.Incompatible&^featureDirty != 0:
		return refuse("it needs features (%#x) that no disk of a sandbox has", h.Incompatible&^featureDirty)
	}
	return nil
}

// readRest returns the part of the first cluster that holds the extensions. The name of the image below ends it.
func (h header) readRest(r io.ReaderAt) ([]byte, error) {
	start, end := uint64(h.Length), uint64(1)<<h.ClusterBits
	if h.BackingOffset != 0 {
		if h.BackingOffset < start || h.BackingSize > maxBackingName || h.BackingOffset > end || uint64(h.BackingSize) > end-h.BackingOffset {
			return nil, refuse("the name of the image below it, of %d bytes at byte %d, is not in its header", h.BackingSize, h.BackingOffset)
		}
		end = h.BackingOffset
	}
	rest, err := io.ReadAll(io.NewSectionReader(r, int64(start), int64(end-start)))
	if err != nil {
		return nil, fmt.Errorf("reading the header of a disk image: %w", err)
	}
	return rest, nil
}

// backingFormat walks through the extensions, and returns what the one says that names the format of the image below.
func backingFormat(rest []byte) (format string, err error) {
	for len(rest) >= 8 {
		kind, length := binary.BigEndian.Uint32(rest), uint64(binary.BigEndian.Uint32(rest[4:]))
		rest = rest[8:]
		if kind == extensionEnd {
			return format, nil
		}
		padded := (length + 7) &^ 7
		if padded > uint64(len(rest)) {
			return "", refuse("an extension of its header (%#x) has %d bytes and does not fit", kind, length)
		}
		switch kind {
		case extensionExternalData:
			return "", refuse("its header names another file for the data, %q", shorten(rest[:length]))
		case extensionEncryption:
			return "", refuse("its header says that it is encrypted")
		case extensionBackingFormat:
			if format != "" {
				return "", refuse("its header names the format of the image below it twice")
			}
			format = shorten(rest[:length])
		}
		rest = rest[padded:]
	}
	return format, nil
}

// shorten keeps a name that somebody made up from filling the screen.
func shorten(name []byte) string {
	if len(name) > maxBackingName {
		name = name[:maxBackingName]
	}
	return string(name)
}

func (h header) checkBacking(r io.ReaderAt, format, below string) error {
	if h.BackingOffset == 0 {
		if below != "" {
			return refuse("its header names no image below it, and must name %q", below)
		}
		return nil
	}
	name := make([]byte, h.BackingSize)
	if n, err := r.ReadAt(name, int64(h.BackingOffset)); n < len(name) {
		if errors.Is(err, io.EOF) {
			return refuse("it ends within its header")
		}
		return fmt.Errorf("reading the header of a disk image: %w", err)
	}
	switch {
	case below == "":
		return refuse("its header names an image below it, %q, and must name none", name)
	case !bytes.Equal(name, []byte(below)):
		return refuse("its header names %q as the image below it, and must name %q", name, below)
	case format != "qcow2":
		return refuse("its header says that the image below it has the format %q, which must be qcow2", format)
	}
	return nil
}
