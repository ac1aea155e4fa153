package qcow2

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func empty(t testing.TB, size int64, below string) []byte {
	t.Helper()
	image, err := Empty(size, below)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// judge returns what Check says, or "".
func judge(t testing.TB, image []byte, below string) string {
	t.Helper()
	_, err := Check(bytes.NewReader(image), below)
	if refused := (*HeaderError)(nil); err != nil && !errors.As(err, &refused) {
		t.Fatalf("not a refusal: %v", err)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWhatIsMadeIsAccepted(t *testing.T) {
	for _, size := range []int64{512, 64 << 20, 20<<30 + 512, maxSize} {
		for _, below := range []string{"", "0.qcow2", strings.Repeat("x", maxBackingName)} {
			image := empty(t, size, below)
			if got, err := Check(bytes.NewReader(image), below); err != nil || got != size {
				t.Errorf("%d over %.20q: %d, %v", size, below, got, err)
			}
		}
	}
}

func TestWhatMakesNoSenseIsNotMade(t *testing.T) {
	for size, below := range map[int64]string{
		0: "", -512: "", 100: "", maxSize + 512: "", 512: "../0.qcow2", 1024: "/etc/shadow", 1536: strings.Repeat("x", 1024),
	} {
		if _, err := Empty(size, below); err == nil {
			t.Errorf("%d bytes over %.20q were made", size, below)
		}
	}
}

// put overwrites a number in the header.
func put[T uint16 | uint32 | uint64](at int, value T) func([]byte) {
	return func(image []byte) {
		var buf bytes.Buffer
		_ = binary.Write(&buf, binary.BigEndian, value) // a buffer takes everything
		copy(image[at:], buf.Bytes())
	}
}

// Each of these was believed when layers were united by qemu-img.
func TestHeadersThatQEMUMayHaveRewrittenAreRefused(t *testing.T) {
	const lower, upper = "", "0.qcow2"
	name := func(text string) func([]byte) { // in place of "0.qcow2"
		return func(image []byte) {
			put(16, uint32(len(text)))(image)
			copy(image[binary.BigEndian.Uint64(image[8:]):], text)
		}
	}
	extensions := func(all ...[]byte) func([]byte) {
		return func(image []byte) {
			text := append(bytes.Join(all, nil), extension(extensionEnd, "")...)
			if binary.BigEndian.Uint64(image[8:]) != 0 {
				put(8, uint64(headerLength+len(text)))(image)
				text = append(text, upper...)
			}
			copy(image[headerLength:], text)
		}
	}
	long := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 0x12345678), 1<<32-1)
	for _, c := range []struct {
		what, below string
		change      func([]byte)
		says        string
	}{
		{"another backing file", upper, name("/etc/shadow"), `"/etc/shadow"`},
		{"a backing file that is a description", upper, name(`json:{"driver":"file","filename":"/etc/shadow"}`), "json:"},
		{"one in another directory", upper, name("../0.qcow2"), `"../0.qcow2"`},
		{"itself", upper, name("1.qcow2"), `"1.qcow2"`},
		{"one whose name begins the same", upper, name("0.qcow2\x00"), `"0.qcow2\x00"`},
		{"one that would paint the terminal", upper, name("\x1b]52;c;eA==\a"), `\x1b]52`},
		{"none", upper, put(8, uint64(0)), "names no image below"},
		{"one for the lowest", lower, func(image []byte) { put(8, uint64(200))(image); put(16, uint32(1))(image); image[200] = 'x' }, "must name none"},
		{"a nameless one for the lowest", lower, put(8, uint64(200)), "must name none"},
		{"a name that is too long", upper, put(16, uint32(1024)), "1024 bytes"},
		{"a name outside of the header", upper, put(8, uint64(clusterSize-1)), "not in its header"},
		{"a name far outside", upper, put(8, uint64(1<<64-1)), "not in its header"},
		{"a name over the numbers", upper, put(8, uint64(8)), "not in its header"},
		{"a raw image below", upper, extensions(extension(extensionBackingFormat, "raw")), `"raw"`},
		{"one below whose format is found out", upper, extensions(), `the format ""`},
		{"two formats", upper, extensions(extension(extensionBackingFormat, "qcow2"), extension(extensionBackingFormat, "raw")), "twice"},
		{"a data file", lower, put(72, uint64(featureExternalData)), "in another file"},
		{"a data file with its name", upper, extensions(extension(extensionBackingFormat, "qcow2"), extension(extensionExternalData, "/etc/shadow")), `"/etc/shadow"`},
		{"a data file's name alone", lower, extensions(extension(extensionExternalData, "/etc/shadow")), `"/etc/shadow"`},
		{"raw data", lower, put(88, uint64(autoclearRawData)), "in another file"},
		{"an extension without end", upper, extensions(long), "does not fit"},
		{"an extension without end below", lower, extensions(long), "does not fit"},
		{"damage", lower, put(72, uint64(featureCorrupt)), "found it damaged"},
		{"compression", lower, put(72, uint64(1<<3)), "features (0x8)"},
		{"a feature of the future", upper, put(72, uint64(1<<63)), "features"},
		{"encryption", lower, put(32, uint32(2)), "encrypted"},
		{"an encryption header", lower, extensions(extension(extensionEncryption, "0123456789abcdef")), "encrypted"},
		{"another format", lower, put(0, uint32(0x7f454c46)), "no qcow2 image"},
		{"an old version", lower, put(4, uint32(1)), "version 1"},
		{"a new version", lower, put(4, uint32(4)), "version 4"},
		{"small clusters", lower, put(20, uint32(8)), "2^8"},
		{"huge clusters", lower, put(20, uint32(1<<31)), "2^2147483648"},
		{"no size", lower, put(24, uint64(0)), "0 bytes"},
		{"a huge size", lower, put(24, uint64(1<<63)), "9223372036854775808 bytes"},
		{"an odd size", lower, put(24, uint64(1<<20+1)), "1048577 bytes"},
		{"a size beyond its table", lower, put(24, uint64(maxSize)), "entries for a disk"},
		{"a huge table", lower, put(36, uint32(1<<31)), "entries"},
		{"a table in the header", lower, put(40, uint64(0)), "table is at byte 0"},
		{"a table between clusters", lower, put(40, uint64(l1Cluster<<clusterBits+8)), "table is at"},
		{"a table beyond all files", lower, put(40, uint64(1<<63)), "table is at"},
		{"reference counts in the header", lower, put(48, uint64(0)), "reference counts is at"},
		{"a huge table of reference counts", lower, put(56, uint32(1<<31)), "2147483648 clusters"},
		{"no table of reference counts", lower, put(56, uint32(0)), "0 clusters"},
		{"wide reference counts", lower, put(96, uint32(7)), "2^7 bits"},
		{"many snapshots", lower, put(60, uint32(1<<31)), "internal snapshots"},
		{"a short header", lower, put(100, uint32(96)), "96 bytes"},
		{"a header longer than its cluster", lower, put(100, uint32(clusterSize+8)), "65544 bytes"},
	} {
		image := empty(t, 1<<30, c.below)
		c.change(image)
		if got := judge(t, image, c.below); !strings.Contains(got, c.says) || got == "" {
			t.Errorf("%s: %q, want a refusal that says %q", c.what, got, c.says)
		}
	}
	for _, size := range []int{0, 4, 50, headerLength - 1} {
		if judge(t, empty(t, 1<<30, "")[:size], "") == "" {
			t.Errorf("%d bytes were accepted", size)
		}
	}
}

// An image that QEMU did not close in order is repaired by QEMU, if it ever says that it is needed.
func TestHeaderOfAnImageInUseIsAccepted(t *testing.T) {
	image := empty(t, 1<<30, "0.qcow2")
	put(72, uint64(featureDirty))(image)
	put(80, uint64(1))(image) // lazy reference counts
	put(88, uint64(1))(image) // bitmaps
	if got := judge(t, image, "0.qcow2"); got != "" {
		t.Error(got)
	}
}

func FuzzCheck(f *testing.F) {
	f.Add(empty(f, 1<<30, "")[:512], "")
	f.Add(empty(f, 1<<30, "0.qcow2")[:512], "0.qcow2")
	f.Fuzz(func(t *testing.T, image []byte, below string) {
		size, err := Check(bytes.NewReader(image), below)
		if err != nil {
			return
		}
		if size <= 0 || size > maxSize || size%512 != 0 {
			t.Errorf("accepted with a size of %d", size)
		}
		if below != "" && !bytes.Contains(image, []byte(below)) {
			t.Errorf("accepted over %q, which it does not name", below)
		}
	})
}

// qemuImg runs the real one, the independent judge.
func qemuImg(t *testing.T, args ...string) []byte {
	t.Helper()
	path, err := exec.LookPath("qemu-img")
	if err != nil {
		t.Skip("needs qemu-img: run make setup-test, or sudo apt install qemu-utils")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func writeImage(t *testing.T, path string, image []byte) {
	t.Helper()
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestQEMUFindsNoFaultWithWhatIsMade(t *testing.T) {
	for _, size := range []int64{512, 64 << 20, 20 << 30, 16 << 40} {
		dir := t.TempDir()
		lower, upper, reference := filepath.Join(dir, "0.qcow2"), filepath.Join(dir, "1.qcow2"), filepath.Join(dir, "reference.qcow2")
		writeImage(t, lower, empty(t, size, ""))
		writeImage(t, upper, empty(t, size, "0.qcow2"))
		for _, path := range []string{lower, upper} {
			if out := qemuImg(t, "check", "-f", "qcow2", path); !bytes.Contains(out, []byte("No errors were found")) {
				t.Errorf("%s of %d bytes: %s", filepath.Base(path), size, out)
			}
		}
		var info struct {
			Format        string
			Size          int64  `json:"virtual-size"`
			Backing       string `json:"backing-filename"`
			BackingFormat string `json:"backing-filename-format"`
		}
		if err := json.Unmarshal(qemuImg(t, "info", "--output=json", upper), &info); err != nil {
			t.Fatal(err)
		}
		if info.Format != "qcow2" || info.Size != size || info.Backing != "0.qcow2" || info.BackingFormat != "qcow2" {
			t.Errorf("QEMU reads %+v", info)
		}
		if size < 1<<40 {
			qemuImg(t, "create", "-q", "-f", "qcow2", reference, "512")
			qemuImg(t, "resize", "-q", reference, strconv.FormatInt(size, 10))
			qemuImg(t, "compare", "-s", "-f", "qcow2", "-F", "qcow2", upper, reference)
		}
	}
}

// Disks that qemu-img made, as older versions of sandbox had them, and what it makes of them later.
func TestImagesOfQEMUsOwnAreAccepted(t *testing.T) {
	dir := t.TempDir()
	lower, upper := filepath.Join(dir, "0.qcow2"), filepath.Join(dir, "1.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", lower, "64M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", "0.qcow2", upper)
	qemuImg(t, "resize", "-q", upper, "2T")
	old := filepath.Join(dir, "old.qcow2")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "compat=0.10", old, "64M")
	for path, want := range map[string]struct {
		below string
		size  int64
	}{lower: {"", 64 << 20}, upper: {"0.qcow2", 2 << 40}, old: {"", 64 << 20}} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if size, err := Check(f, want.below); err != nil || size != want.size {
			t.Errorf("%s: %d, %v", filepath.Base(path), size, err)
		}
	}
	f, err := os.Open(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := Check(f, "2.qcow2"); err == nil {
		t.Error("it was accepted over another one")
	}
}
