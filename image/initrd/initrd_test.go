package initrd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/cavaliergopher/cpio"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image/initrd"
)

func xzData(t *testing.T, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, s); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zstdData(t *testing.T, s string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll([]byte(s), nil)
}

// tree is a kernel's module directory as depmod leaves it.
func tree(t *testing.T) fstest.MapFS {
	t.Helper()
	file := func(data []byte) *fstest.MapFile { return &fstest.MapFile{Data: data} }
	return fstest.MapFS{
		"modules.dep": file([]byte(`kernel/fs/erofs/erofs.ko.xz: kernel/lib/libcrc32c.ko.xz
kernel/lib/libcrc32c.ko.xz:
kernel/drivers/net/virtio_net.ko.zst: kernel/drivers/net/net_failover.ko.xz kernel/net/core/failover.ko.xz
kernel/drivers/net/net_failover.ko.xz: kernel/net/core/failover.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/char/hw_random/virtio-rng.ko:
`)),
		"modules.builtin":                             file([]byte("kernel/fs/fuse/fuse.ko\nkernel/fs/fuse/virtiofs.ko\n")),
		"kernel/fs/erofs/erofs.ko.xz":                 file(xzData(t, "erofs")),
		"kernel/lib/libcrc32c.ko.xz":                  file(xzData(t, "crc")),
		"kernel/drivers/net/virtio_net.ko.zst":        file(zstdData(t, "net")),
		"kernel/drivers/net/net_failover.ko.xz":       file(xzData(t, "net_failover")),
		"kernel/net/core/failover.ko.xz":              file(xzData(t, "failover")),
		"kernel/drivers/char/hw_random/virtio-rng.ko": file([]byte("rng")),
	}
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	modules, err := initrd.Select(tree(t), []string{"virtio_net", "fuse", "crc32c-intel erofs", "virtio_rng", "failover"}, "crc32c-intel")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range modules {
		got = append(got, fmt.Sprintf("%s=%s in %d", m.Name, m.Data, m.Chain))
	}
	// The chain of what failover was wanted for is that of what needs it.
	want := []string{
		"failover.ko=failover in 4", "net_failover.ko=net_failover in 4", "virtio_net.ko=net in 4",
		"libcrc32c.ko=crc in 2", "erofs.ko=erofs in 2", "virtio-rng.ko=rng in 3",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSelectNamesWhatIsMissing(t *testing.T) {
	damaged := tree(t)
	damaged["kernel/fs/erofs/erofs.ko.xz"].Data = []byte("no xz")
	absent := tree(t)
	delete(absent, "kernel/lib/libcrc32c.ko.xz")
	for _, c := range []struct {
		tree   fstest.MapFS
		module string
		want   string
	}{
		{tree(t), "btrfs", `no module "btrfs"`},
		{damaged, "erofs", "decompressing the kernel module kernel/fs/erofs/erofs.ko.xz"},
		{absent, "erofs", "libcrc32c.ko.xz"},
		{fstest.MapFS{}, "erofs", "modules.dep"},
	} {
		if _, err := initrd.Select(c.tree, []string{c.module}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

func contents() initrd.Contents {
	return initrd.Contents{
		Agent: []byte("elf"), Image: boot.Image{Init: "/sbin/init"}, Time: time.Unix(1_700_000_000, 0),
		Modules: []initrd.Module{{Name: "b.ko", Data: []byte("bb")}, {Name: "a.ko", Data: []byte("aa"), Chain: 7}, {Name: "c.ko", Data: []byte("cc")}},
	}
}

func TestArchive(t *testing.T) {
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := initrd.Write(b, contents()); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two archives of the same contents differ")
	}
	got := listing(t, &first)
	const config = `{"store":{"format":"","device":""},"init":"/sbin/init","user":{"name":"","uid":0,"gid":0,"home":"","shell":""},"readiness":{}}`
	want := []string{
		"d755 dev ", "d755 modules ", "d755 newroot ", "d755 proc ", "d755 run ", "d755 sys ",
		"-755 init elf", "-644 guest.json " + config,
		"-644 modules/b.ko bb", "-644 modules/a.ko aa", "-644 modules/c.ko cc", "-644 modules/order b.ko c.ko\na.ko\n",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func listing(t *testing.T, r io.Reader) []string {
	t.Helper()
	var list []string
	inodes := map[int64]bool{}
	for c := cpio.NewReader(r); ; {
		h, err := c.Next()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		kind := "-"
		if h.Mode.IsDir() {
			kind = "d"
		}
		// The kernel takes files with one inode number for hard links.
		if inodes[h.Inode] || h.Uid != 0 || h.Guid != 0 || !h.ModTime.Equal(time.Unix(1_700_000_000, 0)) {
			t.Errorf("%s has inode %d, owner %d:%d, time %v", h.Name, h.Inode, h.Uid, h.Guid, h.ModTime)
		}
		inodes[h.Inode] = true
		list = append(list, fmt.Sprintf("%s%o %s %s", kind, h.Mode.Perm(), h.Name, data))
	}
}

func TestWriteRefusesNonsense(t *testing.T) {
	if err := initrd.Write(io.Discard, initrd.Contents{}); err == nil {
		t.Error("an archive without an agent was written")
	}
}

func Example() {
	modules, err := initrd.Select(os.DirFS("/usr/lib/modules/6.12.0"), []string{"virtio_blk", "erofs", "overlay"})
	if err != nil {
		fmt.Println("no such kernel here")
	}
	var archive bytes.Buffer
	err = initrd.Write(&archive, initrd.Contents{
		Agent: []byte("a static executable"), Image: boot.Image{Init: "/sbin/init"},
		Modules: modules,
	})
	fmt.Println(archive.Len() > 0, err)
	// Output:
	// no such kernel here
	// true <nil>
}
