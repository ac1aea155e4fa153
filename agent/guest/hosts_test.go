//go:build linux

package guest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostsHasOurLineBesideAllOthers(t *testing.T) {
	for _, test := range []struct{ what, old, want string }{
		{"none", "", "127.0.0.1\tlocalhost\n127.0.1.1\tone\n::1\tlocalhost ip6-localhost ip6-loopback\n"},
		{"an image's", "127.0.0.1 localhost\n::1 localhost\n192.0.2.7 db\n", "127.0.0.1 localhost\n127.0.1.1\tone\n::1 localhost\n192.0.2.7 db\n"},
		{"ours, to which a user added", "127.0.0.1\tlocalhost\n127.0.1.1\tzero\n192.0.2.7 db\n", "127.0.0.1\tlocalhost\n127.0.1.1\tone\n192.0.2.7 db\n"},
		{"ours, as it is to be", "127.0.1.1\tone\n# mine\n", "127.0.1.1\tone\n# mine\n"},
		{"without localhost", "192.0.2.7 db\n", "127.0.1.1\tone\n192.0.2.7 db\n"},
		{"without an end", "127.0.0.1 localhost", "127.0.0.1 localhost\n127.0.1.1\tone\n"},
	} {
		if got := hostsFile(test.old, "one"); got != test.want {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}
}

// TestHostsOfAConfiguration has /etc/hosts as NixOS does: an absolute link,
// which its preparation makes anew at each boot.
func TestHostsOfAConfiguration(t *testing.T) {
	root := t.TempDir()
	mustMkdirAll(t, root+"/nix/store/0a-etc/etc", root+"/etc")
	write(t, root+"/nix/store/0a-etc/etc/hosts", "127.0.0.1 localhost\n192.0.2.1 configured\n")
	prepare := func() {
		os.Remove(root + "/etc/hosts")
		if err := os.Symlink("/nix/store/0a-etc/etc/hosts", root+"/etc/hosts"); err != nil {
			t.Fatal(err)
		}
	}
	boot := func() string {
		t.Helper()
		restore := keepHosts(root)
		prepare()
		if err := restore(); err != nil {
			t.Fatal(err)
		}
		text, err := readIn(root, hosts)
		if err != nil {
			t.Fatal(err)
		}
		fresh := hostsFile(string(text), "one")
		if err := replaceFile(filepath.Join(root, hosts), fresh, 0o644); err != nil {
			t.Fatal(err)
		}
		return fresh
	}
	const first = "127.0.0.1 localhost\n127.0.1.1\tone\n192.0.2.1 configured\n"
	if got := boot(); got != first {
		t.Errorf("the first boot: %q, want %q", got, first)
	}
	write(t, root+hosts, first+"192.0.2.7 added\n")
	if got := boot(); !strings.HasSuffix(got, "configured\n192.0.2.7 added\n") {
		t.Errorf("what a user added is lost: %q", got)
	}
}

func mustMkdirAll(t *testing.T, dirs ...string) {
	t.Helper()
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLinksOfARootLeadInside(t *testing.T) {
	root := t.TempDir()
	mustMkdirAll(t, root+"/nix/store/0a-tools/bin", root+"/usr")
	write(t, root+"/nix/store/0a-tools/bin/mkfs.ext4", "the root's")
	for link, target := range map[string]string{
		"/sbin":     "/nix/store/0a-tools/bin", // absolute
		"/usr/sbin": "../sbin",
		"/up":       "../../../../../../../etc/passwd",
		"/loop":     "loop",
		"/magic":    "/proc/self/exe",
	} {
		if err := os.Symlink(target, root+link); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]bool{
		"/sbin/mkfs.ext4": true, "/usr/sbin/mkfs.ext4": true, "sbin/mkfs.ext4": true, "/sbin": true,
		"/sbin/e2fsck": false, "/up": false, "/loop": false, "/magic": false, "/etc/passwd": false, "/../etc/passwd": false,
	} {
		if got := existsIn(root, path); got != want {
			t.Errorf("%s exists: %v, want %v", path, got, want)
		}
	}
	if text, err := readIn(root, "/usr/sbin/mkfs.ext4"); err != nil || string(text) != "the root's" {
		t.Errorf("read %q, %v", text, err)
	}
}
