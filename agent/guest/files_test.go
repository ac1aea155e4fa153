//go:build linux

package guest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
)

func TestFilesOfTheHostAreTheGuestsUsersAlone(t *testing.T) {
	home, outside := t.TempDir(), t.TempDir()
	user := boot.User{UID: os.Getuid(), GID: os.Getgid()}
	put := func(path, content, ours string) string {
		t.Helper()
		if err := writeFile(home, user, agent.File{Path: path, Content: []byte(content), Ours: ours}); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		text, err := os.ReadFile(filepath.Join(home, path))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	if text := put(".agent/deep/file", "first MARK", "MARK"); text != "first MARK" {
		t.Errorf("the file has %q", text)
	}
	for path, want := range map[string]os.FileMode{".agent": 0o700, ".agent/deep": 0o700, ".agent/deep/file": 0o600} {
		if info, err := os.Stat(filepath.Join(home, path)); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	if text := put(".agent/deep/file", "second MARK", "MARK"); text != "second MARK" {
		t.Errorf("one of ours has %q", text)
	}
	if text := put(".agent/deep/file", "third", ""); text != "second MARK" {
		t.Errorf("one that is not to be replaced has %q", text)
	}
	theirs := filepath.Join(home, "theirs")
	if err := os.WriteFile(theirs, []byte("a login of their own"), 0o644); err != nil {
		t.Fatal(err)
	}
	if text := put("theirs", "ours MARK", "MARK"); text != "a login of their own" {
		t.Errorf("one of somebody else has %q", text)
	}
	// What a guest makes of its home leads nowhere else.
	if err := errors.Join(os.Symlink(outside, filepath.Join(home, "out")), os.Symlink(filepath.Join(outside, "made"), filepath.Join(home, "link"))); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(home, user, agent.File{Path: "out/file", Content: []byte("x")}); err == nil {
		t.Error("a link leads out of the home")
	}
	_ = writeFile(home, user, agent.File{Path: "link", Content: []byte("x MARK"), Ours: "MARK"})
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("outside of the home there is %v, %v", left, err)
	}
}

func TestFilesOfTheHostAreInTheHome(t *testing.T) {
	for _, path := range []string{"", ".", "/etc/passwd", "../x", "a/../../x", "a/", "a//b"} {
		if err := checkFiles([]agent.File{{Path: path}}); err == nil {
			t.Errorf("%q is taken", path)
		}
	}
	if err := checkFiles([]agent.File{{Path: "a", Content: []byte(strings.Repeat("x", maxFileContent+1))}}); err == nil || strings.Contains(err.Error(), "xx") {
		t.Errorf("too much: %v", err)
	}
	if err := checkFiles([]agent.File{{Path: ".claude/.credentials.json"}}); err != nil {
		t.Error(err)
	}
}
