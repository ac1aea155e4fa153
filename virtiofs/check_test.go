package virtiofs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestCheckAcceptsOrdinaryDirectories(t *testing.T) {
	home := resolvedTempDir(t)
	for _, dir := range []string{"src/app", ".local/share/games", "Downloads", ".sshd", "go/src/x"} {
		if _, err := (Share{Source: mkdir(t, home, dir)}).Admit(CheckOptions{Home: home}); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	mkdir(t, home, ".ssh")
	if _, err := (Share{Source: mkdir(t, home, "src")}).Admit(CheckOptions{Home: home}); err != nil {
		t.Error(err)
	}
}

func TestCheckRefusesWhatCannotBeShared(t *testing.T) {
	home := resolvedTempDir(t)
	file := filepath.Join(home, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		filepath.Join(home, "missing"):  "does not exist: correct the path, or make it with mkdir -p",
		file:                            "is not a directory, and only directories and regular files can be shared: share " + home + " instead",
		filepath.Join(file, "x"):        "not a directory",
		"relative":                      "must be absolute",
		filepath.Join(home, "a\xffb\n"): "UTF-8",
	} {
		_, err := Share{Source: source}.Admit(CheckOptions{Home: home, AllowDangerous: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", source, err, want)
		}
	}
}

func TestCheckRefusesAnUnreadableDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root can read everything: run the tests as an ordinary user to see this one")
	}
	home := t.TempDir()
	dir := mkdir(t, home, "closed", "inner")
	closed := filepath.Dir(dir)
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o700) })
	for source, want := range map[string]string{closed: "cannot be read", dir: "cannot be reached"} {
		if _, err := (Share{Source: source}).Admit(CheckOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", source, err, want)
		}
	}
}

func TestCheckRefusesDangerousDirectories(t *testing.T) {
	home := mkdir(t, resolvedTempDir(t), "home", "user")
	for _, dir := range []string{".ssh", ".gnupg", ".aws", ".config/gcloud", ".kube", ".docker", ".password-store", ".mozilla/firefox", "state/box", "dotfiles/aws", ".claude/projects", ".cargo/bin", ".local/bin", ".config/nvim"} {
		mkdir(t, home, dir)
	}
	for link, to := range map[string]string{"keys": ".ssh", ".azure": "dotfiles/aws", ".bashrc": "dotrc/bashrc"} {
		if err := os.Symlink(to, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(mkdir(t, home, "dotrc"), "bashrc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	options := CheckOptions{Home: home, Private: []string{home + "/state"}}
	for source, reason := range map[string]string{
		"/":                         "",
		"/etc":                      "configuration",
		"/proc":                     "processes",
		"/proc/self":                "processes",
		"/dev":                      "devices",
		"/sys":                      "devices",
		"/run":                      "sockets",
		"/home":                     "",
		"/usr":                      "programs of the host",
		"/usr/bin":                  "programs of the host",
		"/var":                      "",
		"/var/log":                  "logs",
		filepath.Dir(home):          "whole home",
		home:                        "whole home",
		home + "/.ssh":              "OpenSSH",
		home + "/keys":              "OpenSSH",
		home + "/.gnupg":            "GnuPG",
		home + "/.config":           "Google Cloud",
		home + "/.config/gcloud":    "Google Cloud",
		home + "/.mozilla/firefox":  "browser",
		home + "/dotfiles":          "Azure",
		home + "/.password-store":   "password store",
		home + "/.claude/projects":  "Claude Code",
		home + "/.cargo":            "crates.io",
		home + "/.local":            "programs that you run",
		home + "/.local/bin":        "programs that you run",
		home + "/.config/nvim":      "settings of your programs",
		home + "/dotrc":             "commands that your shell runs",
		home + "/state/box":         "state of this program",
		home + "/.kube/../.docker/": "Docker",
	} {
		if _, err := os.Stat(source); err != nil && !strings.HasPrefix(source, home) {
			continue // where packages are built, some systems have no /run and no /sys
		}
		share, err := ParseShare(source+":x", "/")
		if err != nil {
			t.Fatal(err)
		}
		var danger *DangerError
		if _, err := share.Admit(options); !errors.As(err, &danger) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v; want a DangerError about %q", source, err, reason)
		}
		allow := options
		allow.AllowDangerous = true
		admitted, err := share.Admit(allow)
		if err != nil || !admitted.AllowDangerous {
			t.Errorf("%s, allowed: %+v, %v", source, admitted, err)
			continue
		}
		// That is remembered of this share, and of no other.
		dir, err := admitted.Open(options)
		if err != nil {
			t.Errorf("%s, opened later: %v", source, err)
			continue
		}
		dir.Close()
		admitted.AllowDangerous = false
		if _, err := admitted.Open(options); !errors.As(err, &danger) {
			t.Errorf("%s, opened later without permission: %v", source, err)
		}
	}
}

func TestCheckOfRootsProjects(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root has its home in /root: run the tests as root to see this one")
	}
	if _, err := os.Stat("/root"); err != nil {
		t.Skip("this machine has no /root: nothing to see here")
	}
	dir, err := os.MkdirTemp("/root", "project")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(dir) })
	if _, err := (Share{Source: dir}).Admit(CheckOptions{Home: "/root"}); err != nil {
		t.Errorf("a directory in root's own home: %v", err)
	}
	if _, err := (Share{Source: dir}).Admit(CheckOptions{Home: "/home/user"}); err == nil {
		t.Error("a directory in another's /root is accepted")
	}
}

func TestHomesOfAHost(t *testing.T) {
	homes, err := homesOf(strings.NewReader(`root:x:0:0:root:/root:/bin/bash
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
alice:x:1000:1000:Alice,,,:/home/alice:/bin/zsh
bob:x:1001:1001::/srv/homes/bob/:/bin/sh
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
rootless:x:1002:1002::/:/bin/sh
+@ldap
`))
	want := []home{{"root", "/root"}, {"alice", "/home/alice"}, {"bob", "/srv/homes/bob"}}
	if err != nil || !slices.Equal(homes, want) {
		t.Errorf("got %v, %v; want %v", homes, err, want)
	}
}

// Root shares a user's project with sudo, but neither the user's home nor what the user keeps for himself.
func TestOtherUsersHomes(t *testing.T) {
	base := resolvedTempDir(t)
	alice := home{"alice", mkdir(t, base, "alice")}
	mkdir(t, alice.dir, ".ssh")
	for dir, reason := range map[string]string{
		base:                               "the home of the user alice",
		alice.dir:                          "the home of the user alice",
		mkdir(t, alice.dir, ".ssh/inner"):  "keys of OpenSSH (of the user alice)",
		mkdir(t, alice.dir, ".config/x"):   "(of the user alice)",
		mkdir(t, alice.dir, "src/project"): "",
		mkdir(t, base, "other"):            "",
	} {
		d := openDir(t, dir)
		j := judgement{source: dir}
		var err error
		if j.node, err = d.Node(); err != nil {
			t.Fatal(err)
		}
		if j.line, err = d.Lineage(); err != nil {
			t.Fatal(err)
		}
		switch err := j.home(alice); {
		case reason == "" && err != nil:
			t.Errorf("%s: %v", dir, err)
		case reason != "" && (err == nil || !strings.Contains(err.Error(), reason)):
			t.Errorf("%s: %v; want %q", dir, err, reason)
		}
	}
}

// A guest that has the parent of a share as a share too can move it and put something else in its place.
func TestOpenRefusesWhatTookTheDirectorysPlace(t *testing.T) {
	base := resolvedTempDir(t)
	secret := mkdir(t, base, "home", ".ssh")
	options := CheckOptions{Home: filepath.Dir(secret)}
	source := mkdir(t, base, "project", "sub")
	share, err := (Share{Source: source, Target: "/srv/x"}).Admit(options)
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := errors.Join(os.RemoveAll(base+"/project"), os.Rename(base+"/kept", base+"/project")); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		attack func() error
		want   string
	}{
		"a link in its place":      {func() error { return os.Symlink(secret, source) }, "is a symbolic link now"},
		"another in its place":     {func() error { return os.Mkdir(source, 0o755) }, "is another directory now"},
		"a file in its place":      {func() error { return os.WriteFile(source, nil, 0o600) }, "not a directory"},
		"nothing in its place":     {func() error { return nil }, "does not exist"},
		"a link in place of above": {func() error { return os.Remove(base + "/project") }, "reached by a symbolic link now, " + base + "/project"},
	} {
		if err := errors.Join(os.Rename(base+"/project", base+"/kept"), os.Mkdir(base+"/project", 0o755), test.attack()); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(test.want, "reached by") {
			if err := os.Symlink("kept", base+"/project"); err != nil {
				t.Fatal(err)
			}
		}
		if dir, err := share.Open(options); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, %v; want %q", name, dir, err, test.want)
		}
		restore()
	}
	dir, err := share.Open(options)
	if err != nil {
		t.Fatalf("the directory itself: %v", err)
	}
	dir.Close()
	// It is the same directory, but in a place where nobody may share it.
	moved := share
	moved.Source = secret + "/sub"
	if err := os.Rename(source, moved.Source); err != nil {
		t.Fatal(err)
	}
	if _, err := moved.Open(options); err == nil || !strings.Contains(err.Error(), "keys of OpenSSH") {
		t.Errorf("moved to a dangerous place: %v", err)
	}
}

func TestOpenOfAShareWithoutARecordJudgesItAnew(t *testing.T) {
	base := resolvedTempDir(t)
	options := CheckOptions{Home: base}
	dir, err := (Share{Source: mkdir(t, base, "src")}).Open(options)
	if err != nil {
		t.Fatal(err)
	}
	dir.Close()
	if _, err := (Share{Source: mkdir(t, base, ".ssh")}).Open(options); err == nil {
		t.Error("a dangerous directory is opened")
	}
}
