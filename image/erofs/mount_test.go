//go:build linux

package erofs_test

import (
	"archive/tar"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKernelReadsIt mounts the result, where that is allowed.
func TestKernelReadsIt(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root: run the tests with sudo to have the kernel check the file system")
	}
	acl := "\x02\x00\x00\x00" + // version
		"\x01\x00\x07\x00\xff\xff\xff\xff" + // user::rwx
		"\x04\x00\x05\x00\xff\xff\xff\xff" + // group::r-x
		"\x08\x00\x05\x00\x04\x00\x00\x00" + // group:adm:r-x
		"\x10\x00\x05\x00\xff\xff\xff\xff" + // mask::r-x
		"\x20\x00\x05\x00\xff\xff\xff\xff" // other::r-x
	journal := dir("journal")
	journal.h.PAXRecords = map[string]string{"SCHILY.xattr.system.posix_acl_access": acl}
	capable := reg("capable", "x")
	capability := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	capable.h.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": capability}
	f := packBlocks(t, 1024, reg("first", "content"), hardlink("second", "first"), journal, capable,
		item{tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""})
	mnt := t.TempDir()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "ro,loop", f.Name(), mnt).CombinedOutput(); err != nil {
		t.Skipf("this machine cannot mount EROFS from a file (load the modules erofs and loop, outside of a container): %s", out)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(mnt, 0); err != nil {
			t.Error(err)
		}
	})
	var a, b, null unix.Stat_t
	for name, st := range map[string]*unix.Stat_t{"first": &a, "second": &b, "null": &null} {
		if err := unix.Lstat(filepath.Join(mnt, name), st); err != nil {
			t.Fatal(err)
		}
	}
	if a.Ino != b.Ino || a.Nlink != 2 {
		t.Errorf("inodes %d and %d, %d links", a.Ino, b.Ino, a.Nlink)
	}
	if null.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("null is device %#x", null.Rdev)
	}
	for name, want := range map[string][2]string{
		"journal": {"system.posix_acl_access", acl},
		"capable": {"security.capability", capability},
	} {
		buf := make([]byte, 100)
		n, err := unix.Lgetxattr(filepath.Join(mnt, name), want[0], buf)
		if err != nil || string(buf[:n]) != want[1] {
			t.Errorf("%s of %s is %q, %v", want[0], name, buf[:max(n, 0)], err)
		}
	}
}
