//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/sys/unix"
)

// What leads out of a share is not touched, whoever has put it there.
func TestTouchStaysInTheShare(t *testing.T) {
	outside, share := t.TempDir(), t.TempDir()
	write(t, filepath.Join(outside, "file"), "")
	for _, name := range []string{"file", "dir/file"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(share, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(share, name), "")
	}
	for name, target := range map[string]string{"link": filepath.Join(outside, "file"), "out": outside, "self": "/proc/self/root" + outside} {
		if err := os.Symlink(target, filepath.Join(share, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.Open(share)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	modified := time.Unix(1234567, 89)
	for _, name := range []string{"link", "out/file", "self/file", "dir/../../" + filepath.Base(outside) + "/file", "none", "file/x"} {
		touchBeneath(root, name, modified)
	}
	was := func(name string) time.Time {
		t.Helper()
		info, err := os.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return info.ModTime()
	}
	for _, name := range []string{outside, filepath.Join(outside, "file"), filepath.Join(share, "file")} {
		if was(name).Equal(modified) {
			t.Errorf("%s was touched", name)
		}
	}
	for _, name := range []string{"file", "dir", "dir/file", "link", "."} {
		touchBeneath(root, name, modified)
		if got := was(filepath.Join(share, name)); !got.Equal(modified) {
			t.Errorf("%s is of %v", name, got)
		}
	}
	if was(filepath.Join(outside, "file")).Equal(modified) {
		t.Error("the target of a link was touched in its place")
	}
}

// A user of the guest who moves what leads to a share, and puts another there, has nothing of his own touched.
func TestTouchWantsTheSharesFileSystem(t *testing.T) {
	dir := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	m := mounted{device: deviceName(unix.Major(st.Dev), unix.Minor(st.Dev)), target: dir}
	root, err := openMounted(m)
	if err != nil {
		t.Fatal(err)
	}
	root.Close()
	m.device = "4095:1"
	if _, err := openMounted(m); err == nil {
		t.Error("another file system was opened")
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("/proc", link); err != nil {
		t.Fatal(err)
	}
	if _, err := openMounted(mounted{device: m.device, target: link}); err == nil {
		t.Error("a link was followed")
	}
	if _, err := openMounted(mounted{target: filepath.Join(dir, "none")}); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestTouchRefusesPathsThatLeave(t *testing.T) {
	s := &service{image: boot.Image{User: boot.User{Home: "/home/agent"}}}
	for _, path := range []string{"..", "/etc/passwd", "a/../../b", ""} {
		var refused *wire.ControlError
		if err := s.Touch(t.Context(), "share0", time.Time{}, []agent.Touch{{Path: path}}); !errors.As(err, &refused) || refused.Code != wire.CodeBadRequest {
			t.Errorf("%q: %v", path, err)
		}
	}
	if err := s.Touch(t.Context(), "share0", time.Time{}, []agent.Touch{{Path: "a"}}); err == nil {
		t.Error("a share was touched that is not mounted")
	}
}

func TestParseWatch(t *testing.T) {
	device, kind, handle, ok := parseWatch("inotify wd:5 ino:9aa3b6 sdev:800020 mask:fff ignored_mask:0 fhandle-bytes:c fhandle-type:81 f_handle:000000000900000000000000")
	if got := fmt.Sprintf("%s %x %x %v", device, kind, handle, ok); got != "8:32 81 000000000900000000000000 true" {
		t.Error(got)
	}
	for _, line := range []string{
		"", "pos:\t0", "inotify", "inotify wd:1 ino:10 sdev:20 mask:fff", // of a file system without handles
		"inotify wd:1 sdev:x fhandle-type:81 f_handle:00", "inotify wd:1 sdev:20 fhandle-type:fffffffff f_handle:00", "inotify wd:1 sdev:20 fhandle-type:81 f_handle:0",
	} {
		if _, _, _, ok := parseWatch(line); ok {
			t.Errorf("%q is a watch", line)
		}
	}
}

func TestWatchedFilesAreFound(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	write(t, name, "")
	inotify, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inotify)
	if _, err := unix.InotifyAddWatch(inotify, name, unix.IN_MODIFY); err != nil {
		t.Fatal(err)
	}
	// The file system's own number, which that of its files need not be.
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", inotify))
	if err != nil {
		t.Fatal(err)
	}
	var found string
	for line := range strings.Lines(string(info)) {
		if device, _, handle, ok := parseWatch(line); ok {
			handles, err := watchedHandles(device)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range handles {
				if string(h.Bytes()) == string(handle) {
					found = device
				}
			}
		}
	}
	if found == "" {
		t.Skipf("files of this file system have no handles: %s", info)
	}
}
