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
		"--fd=3", "--shared-dir=" + dir, "--seccomp=kill",
		"--inode-file-handles=never", "--log-level=info", "--rlimit-nofile=4096",
		"--migration-on-error=guest-error", "--cache=auto", "--announce-submounts", "--readonly", "--sandbox=namespace",
		"--translate-uid=squash-guest:0:0:4294967295", "--translate-uid=host:0:1000:1", "--translate-uid=squash-host:1:65534:4294967294",
		"--translate-gid=squash-guest:0:0:4294967295", "--translate-gid=host:0:100:1", "--translate-gid=squash-host:1:65534:4294967294",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestArgumentsOfALowerLayer(t *testing.T) {
	got := arguments(ServerConfig{Directory: openDir(t, "/"), ReadOnly: true, Lower: true}, unconfined(ServerConfig{}, nil), 3, 4096)
	if !slices.Contains(got, "--cache=always") || slices.Contains(got, "--cache=auto") || slices.Contains(got, "--announce-submounts") {
		t.Errorf("an overlay over %q finds stale files", got)
	}
}

func TestArgumentsWithoutANamespaceTranslateToTheHostsIDs(t *testing.T) {
	c := ServerConfig{Directory: openDir(t, "/"), GuestUID: 1000, GuestGID: 1000, HostUID: 1001, HostGID: 1002}
	got := strings.Join(arguments(c, unconfined(c, nil), 3, 4096), " ")
	for _, want := range []string{
		"--sandbox=none",
		"--translate-uid=squash-guest:0:1001:4294967295 --translate-uid=host:1001:1000:1 --translate-uid=squash-host:0:65534:1001 --translate-uid=squash-host:1002:65534:4294966293",
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

// What the host user may do by a group of its, the guest's user may try.
func TestGroupsOfTheHostUserAreTheGuestUsers(t *testing.T) {
	c := ServerConfig{Directory: openDir(t, "/"), GuestGID: 1000, HostUID: 1001, HostGID: 100, HostGroups: []int{20, 5}}
	for _, test := range []struct {
		name string
		i    isolation
		want string
	}{
		{"of root's", ownNamespace(0, c), "host:0:1000:1 squash-host:1:1000:1 squash-host:2:1000:1 squash-host:3:65534:4294967292"},
		{"of a user's", ownNamespace(1001, c), "host:0:1000:1 squash-host:1:65534:65533 squash-host:65534:1000:1 squash-host:65535:65534:4294901760"},
		{"made by virtiofsd", helperNamespace(c), "host:0:1000:1 squash-host:1:65534:65533 squash-host:65534:1000:1 squash-host:65535:65534:4294901760"},
		{"none", unconfined(c, nil), "host:100:1000:1 squash-host:0:65534:5 squash-host:5:1000:1 squash-host:6:65534:14 squash-host:20:1000:1 squash-host:21:65534:79 squash-host:101:65534:4294967194"},
	} {
		var got []string
		for _, arg := range arguments(c, test.i, 3, 4096) {
			if flag, ok := strings.CutPrefix(arg, "--translate-gid="); ok && !strings.HasPrefix(flag, "squash-guest") {
				got = append(got, flag)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s:\ngot  %s\nwant %s", test.name, strings.Join(got, " "), test.want)
		}
	}
	c.HostGroups = nil
	if ownNamespace(1001, c).groups != nil || ownNamespace(0, c).keepGroups {
		t.Error("without further groups, foreign ones are the guest's")
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

// virtiofsd gives up all groups where it could take others, and has no use of the host user's then.
func TestGroupsThatRootGivesAreKept(t *testing.T) {
	needRoot(t)
	for _, groups := range [][]int{nil, {60200, 60201}} {
		c, log := config(t)
		c.HostGroups = groups
		s, err := fake(t, become(t, fakeGroups)).Start(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		log.await(t, readyLine)
		stop(t, s)
		want := "gave them up: <nil>, has []"
		if len(groups) > 0 && s.Isolation() == "user namespace" {
			want = "gave them up: <nil>, has [1 2]"
		}
		if !strings.Contains(log.String(), want) {
			t.Errorf("with the groups %v, isolation %s: %s\nwant %q", groups, s.Isolation(), log, want)
		}
	}
}
