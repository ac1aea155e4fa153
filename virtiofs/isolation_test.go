package virtiofs

import (
	"slices"
	"strings"
	"testing"
)

func TestArgumentsOfAReadOnlyShare(t *testing.T) {
	dir := mkdir(t, resolvedTempDir(t), "a b")
	c := ServerConfig{Directory: openDir(t, dir), ReadOnly: true, GuestUID: 1000, GuestGID: 100, HostUID: 1001, HostGID: 1002}
	got := arguments(c, ownNamespace(1001, c), 3, 4096)
	want := []string{
		"--fd=3", "--shared-dir=" + dir, "--seccomp=kill", "--cache=auto", "--announce-submounts",
		"--inode-file-handles=never", "--log-level=info", "--rlimit-nofile=4096",
		"--migration-on-error=guest-error", "--readonly", "--sandbox=namespace",
		"--translate-uid=squash-guest:0:0:4294967295", "--translate-uid=host:0:1000:1", "--translate-uid=squash-host:1:65534:4294967294",
		"--translate-gid=squash-guest:0:0:4294967295", "--translate-gid=host:0:100:1", "--translate-gid=squash-host:1:65534:4294967294",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestArgumentsWithoutANamespaceTranslateToTheHostsIDs(t *testing.T) {
	c := ServerConfig{Directory: openDir(t, "/"), GuestUID: 1000, GuestGID: 1000, HostUID: 1001, HostGID: 1002}
	got := strings.Join(arguments(c, unconfined(c, nil), 3, 4096), " ")
	for _, want := range []string{
		"--sandbox=none",
		"--translate-uid=squash-guest:0:1001:4294967295 --translate-uid=host:1001:1000:1 --translate-uid=squash-host:1002:65534:4294966293 --translate-uid=squash-host:0:65534:1001",
		"--translate-gid=squash-guest:0:1002:4294967295 --translate-gid=host:1002:1000:1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%s\nlacks %s", got, want)
		}
	}
	if strings.Contains(got, "--readonly") {
		t.Errorf("%s\nis read-only", got)
	}
}

func TestIsolationsNeverGiveMoreThanTheHostUserHas(t *testing.T) {
	for _, test := range []struct {
		name          string
		euid, hostUID int
		want          []string
	}{
		{"user", 1001, 1001, []string{"user namespace", "user namespace made by virtiofsd", "none"}},
		{"root for itself", 0, 0, []string{"user namespace", "namespace without capabilities", "chroot without capabilities"}},
		{"root for a user", 0, 1001, []string{"user namespace", "none"}},
	} {
		var names []string
		for _, i := range isolations(test.euid, ServerConfig{HostUID: test.hostUID, HostGID: test.hostUID}) {
			names = append(names, i.name)
			root := test.euid == 0 && i.attr.Credential == nil
			if root && !slices.ContainsFunc(i.args, func(a string) bool { return strings.HasPrefix(a, "--modcaps=-") }) {
				t.Errorf("%s: %s runs as root with its capabilities", test.name, i.name)
			}
			if i.weak != (i.name == "none") || i.pinned == i.weak {
				t.Errorf("%s: %s is weak: %v, pinned: %v", test.name, i.name, i.weak, i.pinned)
			}
			if c := i.attr.Credential; c != nil && i.attr.Cloneflags == 0 && int(c.Uid) != test.hostUID {
				t.Errorf("%s: %s runs as user %d, want %d", test.name, i.name, c.Uid, test.hostUID)
			}
		}
		if !slices.Equal(names, test.want) {
			t.Errorf("%s: got %q, want %q", test.name, names, test.want)
		}
	}
}
