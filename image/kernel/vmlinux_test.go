package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// fakeKernel is an ELF file with one note of that type.
func fakeKernel(t *testing.T, note uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	notes := []any{
		// One note before it, whose size is no multiple of four.
		[]uint32{6, 5, 1},
		[]byte("Linux\x00\x00\x00"), []byte("12345\x00\x00\x00"),
		[]uint32{4, 8, note},
		[]byte("Xen\x00"), uint64(0x1000b20),
	}
	const size = 12 + 8 + 8 + 12 + 4 + 8
	for _, v := range append([]any{
		elf.Header64{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
		},
		elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: size, Memsz: size, Align: 4},
	}, notes...) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func bzImage(payload []byte) []byte {
	image := make([]byte, 3*512, 3*512+16+len(payload)+4)
	image[0x1f1] = 2
	copy(image[0x202:], "HdrS\x0f\x02")
	binary.LittleEndian.PutUint32(image[0x248:], 16)
	binary.LittleEndian.PutUint32(image[0x24c:], uint32(len(payload)+4))
	image = append(image, make([]byte, 16)...)
	image = append(image, payload...)
	return append(image, "size"...)
}

func TestVmlinux(t *testing.T) {
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	kernel := fakeKernel(t, 18)
	got, err := vmlinux(bzImage(z.EncodeAll(kernel, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := elf.NewFile(bytes.NewReader(got)); err != nil || !hasPVHEntry(f) {
		t.Errorf("the result is no kernel any more: %v", err)
	}
	short := bzImage(z.EncodeAll(kernel, nil))
	for name, image := range map[string][]byte{
		"no bzImage":        []byte("MZ"),
		"payload cut":       short[:len(short)-5],
		"other compression": bzImage([]byte("BZh91AY")),
		"no ELF inside":     bzImage(z.EncodeAll([]byte("hello"), nil)),
		"no PVH entry":      bzImage(z.EncodeAll(fakeKernel(t, 17), nil)),
	} {
		if _, err := vmlinux(image); !errors.Is(err, errNoVmlinux) {
			t.Errorf("%s: %v", name, err)
		}
		if got, err := Plain(image); err != nil || !bytes.Equal(got, image) {
			t.Errorf("%s: Plain gives %d bytes, %v; want it as it was", name, len(got), err)
		}
	}
}

func TestCompactKernelLoadsTheSame(t *testing.T) {
	notes := fakeKernel(t, 18)[120:]
	code := append(bytes.Repeat([]byte{0x90}, 5000), notes...)
	end := uint64(2<<20 + len(code))
	progs := []elf.Prog64{
		{Type: uint32(elf.PT_LOAD), Off: 2 << 20, Vaddr: 0xffffffff81000000, Paddr: 0x1000000, Filesz: uint64(len(code)), Memsz: uint64(len(code)), Align: 2 << 20},
		{Type: uint32(elf.PT_LOAD), Off: 4 << 20, Vaddr: 0xffffffff82c00000, Paddr: 0x2c00000, Filesz: 1 << 20, Memsz: 3 << 20, Align: 2 << 20},
		{Type: uint32(elf.PT_NOTE), Off: end - uint64(len(notes)), Filesz: uint64(len(notes)), Memsz: uint64(len(notes)), Align: 4},
	}
	var b bytes.Buffer
	for _, v := range []any{
		elf.Header64{
			Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)},
			Type:  uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1, Entry: 0x1000c43, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 3,
		}, progs,
	} {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	kernel := append(b.Bytes(), make([]byte, 5<<20-b.Len())...)
	copy(kernel[2<<20:], code)
	copy(kernel[4<<20:], "data")
	got, err := compact(kernel)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) > 32<<10 {
		t.Errorf("it still has %d bytes", len(got))
	}
	f, err := elf.NewFile(bytes.NewReader(got))
	if err != nil {
		t.Fatal(err)
	}
	if f.Entry != 0x1000c43 || !hasPVHEntry(f) || len(f.Progs) != 3 {
		t.Errorf("it became %+v", f.FileHeader)
	}
	for i, want := range [][]byte{code, []byte("data")} {
		p := f.Progs[i]
		data := make([]byte, p.Filesz)
		if _, err := p.ReadAt(data, 0); err != nil || !bytes.Equal(bytes.TrimRight(want, "\x00"), data) {
			t.Errorf("segment %d holds other data (%v)", i, err)
		}
		if p.Vaddr != progs[i].Vaddr || p.Paddr != progs[i].Paddr || p.Memsz != progs[i].Memsz {
			t.Errorf("segment %d became %+v", i, p.ProgHeader)
		}
	}
}
