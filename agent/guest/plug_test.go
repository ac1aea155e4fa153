//go:build linux

package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"golang.org/x/sys/unix"
)

func TestPluggedMountPointFollowsNoLink(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	user := boot.User{UID: os.Getuid(), GID: os.Getgid(), Home: filepath.Join(top, "home")}
	secret := filepath.Join(top, "secret")
	for _, dir := range []string{user.Home, secret} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := directoryPoint("/", filepath.Join(user.Home, "a/b"), user)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if info, err := os.Stat(filepath.Join(user.Home, "a/b")); err != nil || !info.IsDir() {
		t.Errorf("the mount point is not there: %v", err)
	}
	if err := os.Symlink(secret, filepath.Join(user.Home, "link")); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"link", "link/x"} {
		for _, file := range []string{"", "x"} {
			if point, err := sharePoint("/", user, agent.Mount{Target: filepath.Join(user.Home, path), File: file}); err == nil {
				t.Errorf("%s leads to %s", path, point.Name())
				point.Close()
			}
		}
	}
	if made, _ := os.ReadDir(secret); len(made) != 0 {
		t.Errorf("behind the link is %v now", made)
	}
}

func TestFilePoint(t *testing.T) {
	top, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	user := boot.User{UID: os.Getuid(), GID: os.Getgid(), Home: "/home"}
	if err := os.WriteFile(filepath.Join(top, "there"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/there", "/home/a/new", "/home/a/new"} {
		point, err := filePoint(top, path, user)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if point.Name() != top+path {
			t.Errorf("%s is %s", path, point.Name())
		}
		point.Close()
	}
	if text, err := os.ReadFile(filepath.Join(top, "there")); string(text) != "text" {
		t.Errorf("what was there holds %q now, %v", text, err)
	}
	if info, err := os.Stat(filepath.Join(top, "home/a/new")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("%v, %v", info, err)
	}
	if point, err := filePoint(top, "/home/a", user); err == nil {
		t.Error("a directory is taken for a file")
		point.Close()
	}
}

func TestMountTableIsRead(t *testing.T) {
	var table mountTable
	for _, line := range []string{
		`36 35 0:45 / /home/agent rw,nosuid shared:1 - virtiofs home rw`,
		`37 36 0:46 / /home/agent/with\040blank\134 rw,nosuid shared:2 master:1 - virtiofs share1 rw`,
		`38 37 0:47 / /home/agent/with\040blank\134/in rw - tmpfs share1 rw`,
		`39 36 0:46 /sub /srv/x rw - virtiofs share1 rw`,
	} {
		m, ok := parseMounted(line)
		if !ok {
			t.Fatalf("%q is not read", line)
		}
		table = append(table, m)
	}
	var targets []string
	for _, m := range table.of("share1") {
		targets = append(targets, m.target)
	}
	if want := []string{`/home/agent/with blank\`, "/srv/x"}; !slices.Equal(targets, want) {
		t.Errorf("the share is mounted at %q, want %q", targets, want)
	}
	if users := table.users(table[1]); !users.Busy || !slices.Equal(users.Mounts, []string{`/home/agent/with blank\/in`}) {
		t.Errorf("it is used by %+v", users)
	}
	for _, line := range []string{"", "36 35 0:45", "1 2 3 4 5 6 - x", "- - -"} {
		if m, ok := parseMounted(line); ok {
			t.Errorf("%q is read as %+v", line, m)
		}
	}
}

func TestProcessThatUsesADeviceIsFound(t *testing.T) {
	dir := t.TempDir()
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sleep", "1000")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	process := fmt.Sprintf("/proc/%d", cmd.Process.Pid)
	if got := usedBy(process, deviceName(unix.Major(st.Dev), unix.Minor(st.Dev))); got != "working directory" {
		t.Errorf("it uses %q", got)
	}
	if got := usedBy(process, "999:999"); got != "" {
		t.Errorf("it uses %q of another device", got)
	}
}
