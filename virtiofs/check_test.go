package virtiofs

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCheckAcceptsOrdinaryDirectories(t *testing.T) {
	home := resolvedTempDir(t)
	for _, dir := range []string{"src/app", ".config/nvim", "Downloads", ".sshd"} {
		if err := (Share{Source: mkdir(t, home, dir)}).Check(CheckOptions{Home: home}); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
	mkdir(t, home, ".ssh")
	if err := (Share{Source: mkdir(t, home, "src")}).Check(CheckOptions{Home: home}); err != nil {
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
		file:                            "is not a directory, and only directories can be shared: share " + home + " instead",
		filepath.Join(file, "x"):        "not a directory",
		"relative":                      "must be absolute",
		filepath.Join(home, "a\xffb\n"): "UTF-8",
	} {
		err := Share{Source: source}.Check(CheckOptions{Home: home, AllowDangerous: true})
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
		if err := (Share{Source: source}).Check(CheckOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", source, err, want)
		}
	}
}

func TestCheckRefusesDangerousDirectories(t *testing.T) {
	home := mkdir(t, resolvedTempDir(t), "home", "user")
	for _, dir := range []string{".ssh", ".gnupg", ".aws", ".config/gcloud", ".kube", ".docker", ".password-store", ".mozilla/firefox", "state/box", "dotfiles/aws"} {
		mkdir(t, home, dir)
	}
	for link, to := range map[string]string{"keys": ".ssh", ".azure": "dotfiles/aws"} {
		if err := os.Symlink(to, filepath.Join(home, link)); err != nil {
			t.Fatal(err)
		}
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
		if err := share.Check(options); !errors.As(err, &danger) || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: %v; want a DangerError about %q", source, err, reason)
		}
		allow := options
		allow.AllowDangerous = true
		if err := share.Check(allow); err != nil {
			t.Errorf("%s, allowed: %v", source, err)
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
	if err := (Share{Source: dir}).Check(CheckOptions{Home: "/root"}); err != nil {
		t.Errorf("a directory in root's own home: %v", err)
	}
	if err := (Share{Source: dir}).Check(CheckOptions{Home: "/home/user"}); err == nil {
		t.Error("a directory in another's /root is accepted")
	}
}
