package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// errNoVmlinux says that a kernel is to be used as it is.
var errNoVmlinux = errors.New("the kernel has no part that can be booted directly")

// Plain returns a distribution's kernel in the form that boots fastest: without
// its own decompressor if there is one that QEMU can do without, and otherwise
// as it is.
func Plain(kernel []byte) ([]byte, error) {
	plain, err := vmlinux(kernel)
	if errors.Is(err, errNoVmlinux) {
		return kernel, nil
	}
	return plain, err
}

// vmlinux takes the uncompressed kernel out of an x86 bzImage. The error wraps
// errNoVmlinux if bzImage is of another kind.
func vmlinux(bzImage []byte) ([]byte, error) {
	payload, err := bzPayload(bzImage)
	if err != nil {
		return nil, err
	}
	kernel, err := decompress(payload)
	if err != nil {
		return nil, err
	}
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoVmlinux, err)
	}
	if !hasPVHEntry(f) {
		return nil, fmt.Errorf("%w: no entry for PVH (CONFIG_PVH)", errNoVmlinux)
	}
	return compact(kernel)
}

// bzPayload finds the compressed kernel by the setup header (the kernel's
// Documentation/arch/x86/boot.rst).
func bzPayload(image []byte) ([]byte, error) {
	const (
		setupSectors  = 0x1f1
		magic         = 0x202
		version       = 0x206
		payloadOffset = 0x248
		headerEnd     = 0x250
	)
	le := binary.LittleEndian
	if len(image) < headerEnd || string(image[magic:magic+4]) != "HdrS" || le.Uint16(image[version:]) < 0x208 {
		return nil, fmt.Errorf("%w: it is no bzImage", errNoVmlinux)
	}
	sectors := uint64(image[setupSectors])
	if sectors == 0 {
		sectors = 4
	}
	start := (sectors+1)*512 + uint64(le.Uint32(image[payloadOffset:]))
	end := start + uint64(le.Uint32(image[payloadOffset+4:]))
	// The last four bytes are the length of the result, which is no part of
	// the compressed stream.
	if end > uint64(len(image)) || start+4 > end {
		return nil, fmt.Errorf("%w: its payload is outside of the file", errNoVmlinux)
	}
	return image[start : end-4], nil
}

// decompress knows the two formats that distributions use for kernels.
func decompress(payload []byte) ([]byte, error) {
	var r io.Reader
	var err error
	switch {
	case bytes.HasPrefix(payload, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		var z *zstd.Decoder
		if z, err = zstd.NewReader(bytes.NewReader(payload)); err == nil {
			defer z.Close()
			r = z
		}
	case bytes.HasPrefix(payload, []byte("\xfd7zXZ\x00")):
		r, err = xz.NewReader(bytes.NewReader(payload))
	default:
		err = errors.New("its compression is neither zstd nor xz")
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoVmlinux, err)
	}
	kernel, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("decompressing the kernel: %w", err)
	}
	return kernel, nil
}

// hasPVHEntry looks for the ELF note that says where PVH starts
// (XEN_ELFNOTE_PHYS32_ENTRY).
func hasPVHEntry(f *elf.File) bool {
	const phys32Entry = 18
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE {
			continue
		}
		notes, err := io.ReadAll(p.Open())
		if err != nil {
			return false
		}
		for len(notes) >= 12 {
			name, desc, kind := f.ByteOrder.Uint32(notes), f.ByteOrder.Uint32(notes[4:]), f.ByteOrder.Uint32(notes[8:])
			if kind == phys32Entry && bytes.HasPrefix(notes[12:], []byte("Xen\x00")) {
				return true
			}
			next := 12 + align(uint64(name), 4) + align(uint64(desc), 4)
			if next > uint64(len(notes)) {
				return false
			}
			notes = notes[next:]
		}
	}
	return false
}
