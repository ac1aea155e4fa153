package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
)

// Sizes of the headers of a 64-bit ELF file, and of a page.
const (
	elfHeaderSize  = 64
	progHeaderSize = 56
	pageSize       = 4096
)

// compact writes a kernel anew with nothing but what is loaded: a third of the
// file is padding to 2 MiB, section headers, and zeros at the ends of segments,
// which whoever loads it makes from the size in memory.
func compact(kernel []byte) ([]byte, error) {
	f, err := elf.NewFile(bytes.NewReader(kernel))
	if err != nil {
		return nil, err
	}
	if f.Class != elf.ELFCLASS64 {
		return kernel, nil
	}
	var header elf.Header64
	if err := binary.Read(bytes.NewReader(kernel), f.ByteOrder, &header); err != nil {
		return nil, err
	}
	header.Phoff, header.Shoff, header.Shnum, header.Shstrndx = elfHeaderSize, 0, 0, 0
	segments, body, err := segments(f)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	for _, part := range []any{header, segments} {
		if err := binary.Write(&b, f.ByteOrder, part); err != nil {
			return nil, err
		}
	}
	b.Write(make([]byte, int(segments[0].Off)-b.Len()))
	b.Write(body)
	return b.Bytes(), nil
}

// segments lays out what is loaded, from the first page behind the headers. A
// segment within an earlier one, as the notes are, stays there.
func segments(f *elf.File) ([]elf.Prog64, []byte, error) {
	start := align(elfHeaderSize+uint64(len(f.Progs))*progHeaderSize, pageSize)
	var all []elf.Prog64
	var body bytes.Buffer
	for i, p := range f.Progs {
		s := elf.Prog64{
			Type: uint32(p.Type), Flags: uint32(p.Flags), Vaddr: p.Vaddr, Paddr: p.Paddr,
			Filesz: p.Filesz, Memsz: p.Memsz, Align: min(p.Align, pageSize),
		}
		if outer := within(f.Progs[:i], p); outer >= 0 {
			s.Off = all[outer].Off + p.Off - f.Progs[outer].Off
			all = append(all, s)
			continue
		}
		data, err := io.ReadAll(p.Open())
		if err != nil {
			return nil, nil, fmt.Errorf("reading the kernel's segments: %w", err)
		}
		if p.Type == elf.PT_LOAD {
			data = bytes.TrimRight(data, "\x00")
			s.Filesz = uint64(len(data))
		}
		s.Off = start + uint64(body.Len())
		body.Write(data)
		body.Write(make([]byte, align(uint64(body.Len()), pageSize)-uint64(body.Len())))
		all = append(all, s)
	}
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("the kernel has no segments")
	}
	return all, body.Bytes(), nil
}

// within finds the segment that is loaded with p in it, or -1.
func within(progs []*elf.Prog, p *elf.Prog) int {
	for i, q := range progs {
		if q.Type == elf.PT_LOAD && p.Off >= q.Off && p.Off+p.Filesz <= q.Off+q.Filesz {
			return i
		}
	}
	return -1
}

func align(n, size uint64) uint64 { return (n + size - 1) / size * size }
