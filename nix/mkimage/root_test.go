package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestUsers has what NixOS's update-users-groups.pl makes of the same, which
// make nix-boot compares in a guest.
func TestUsers(t *testing.T) {
	r := decodeRoot(t, `{"users": [
		{"name": "agent", "uid": 1000, "group": "agent", "home": "/home/agent", "shell": "/bin/zsh", "autoSubUidGidRange": true},
		{"name": "bob", "group": "users", "description": "Bob", "home": "/srv/bob", "homeMode": "2750", "createHome": true,
		 "shell": "/bin/sh", "hashedPassword": "$6$salt$hash", "expires": "1970-02-01", "autoSubUidGidRange": true},
		{"name": "daemon", "group": "daemon", "isSystemUser": true, "home": "/var/empty", "shell": null,
		 "subUidRanges": [{"startUid": 9, "count": 1}], "subGidRanges": [{"startGid": 8, "count": 2}]},
		{"name": "root", "uid": 0, "group": "root", "home": "/root", "shell": "/bin/sh", "hashedPassword": ""}
	], "groups": [
		{"name": "agent", "gid": 1000, "members": []},
		{"name": "daemon", "members": []},
		{"name": "last", "gid": 998, "members": []},
		{"name": "root", "gid": 0, "members": []},
		{"name": "shadow", "gid": 318, "members": []},
		{"name": "users", "members": ["bob", "agent", "bob"]}
	]}`)
	files, err := r.files()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"etc/passwd": "root:x:0:0::/root:/bin/sh\n" +
			"daemon:x:999:999::/var/empty:/run/current-system/sw/bin/nologin\n" +
			"agent:x:1000:1000::/home/agent:/bin/zsh\n" +
			"bob:x:1001:997:Bob:/srv/bob:/bin/sh\n",
		"etc/group": "root:x:0:\nshadow:x:318:\nusers:x:997:agent,bob\nlast:x:998:\ndaemon:x:999:\nagent:x:1000:\n",
		"etc/shadow": "root::1::::::\ndaemon:!:1::::::\nagent:!:1::::::\n" +
			"bob:$6$salt$hash:1:::::31:\n",
		"etc/subuid":                       "daemon:9:1\nagent:100000:65536\nbob:165536:65536\n",
		"etc/subgid":                       "daemon:8:2\nagent:100000:65536\nbob:165536:65536\n",
		"var/lib/nixos/uid-map":            `{"agent":1000,"bob":1001,"daemon":999,"root":0}`,
		"var/lib/nixos/gid-map":            `{"agent":1000,"daemon":999,"last":998,"root":0,"shadow":318,"users":997}`,
		"var/lib/nixos/auto-subuid-map":    `{"agent":100000,"bob":165536}` + "\n",
		"var/lib/nixos/declarative-users":  "agent bob daemon root",
		"var/lib/nixos/declarative-groups": "agent daemon last root shadow users",
	} {
		if got := string(files[name].data); got != want {
			t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
		}
	}
	for name, want := range map[string]string{
		"etc/passwd": "-rw-r--r-- 0:0", "etc/shadow": "-rw-r----- 0:318", "srv/bob": "dgrwxr-x--- 1001:997",
	} {
		if f := files[name]; fmt.Sprintf("%v %d:%d", f.mode, f.uid, f.gid) != want {
			t.Errorf("%s is %v %d:%d, want %s", name, f.mode, f.uid, f.gid, want)
		}
	}
}

func TestUsersThatCannotBe(t *testing.T) {
	for spec, want := range map[string]string{
		`{"users": [{"name": "bob", "group": "none"}], "groups": []}`:                                                   `the user bob: there is no group "none"`,
		`{"users": [{"name": "bob", "group": "g", "expires": "soon"}], "groups": [{"name": "g"}, {"name": "shadow"}]}`:  `the user bob: parsing time "soon"`,
		`{"users": [{"name": "bob", "group": "g", "createHome": true}], "groups": [{"name": "g"}, {"name": "shadow"}]}`: `the home of bob: `,
		`{"users": [], "groups": []}`: `there is no group "shadow"`,
	} {
		r := decodeRoot(t, spec)
		if _, err := r.files(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", spec, err, want)
		}
	}
}

// TestEtc packs an /etc as NixOS's etc.nix makes it, and what another program
// would pack after it.
func TestEtc(t *testing.T) {
	etc, elsewhere := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"secret.mode": "0640\n", "secret.uid": "bob\n", "secret.gid": "+7\n",
		"tool.mode": "4755\n", "tool.uid": "+0\n", "tool.gid": "shadow\n",
		"mtab.mode": "direct-symlink\n", "mtab.uid": "+0\n", "mtab.gid": "+0\n",
	} {
		writeFile(t, filepath.Join(etc, name), text)
	}
	writeFile(t, filepath.Join(elsewhere, "text"), "of the configuration")
	for name, target := range map[string]string{
		"secret": filepath.Join(elsewhere, "text"), "tool": filepath.Join(elsewhere, "text"), "mtab": "/proc/mounts",
		"dir/link": filepath.Join(elsewhere, "text"), "units": elsewhere,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(etc, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, filepath.Join(etc, name)); err != nil {
			t.Fatal(err)
		}
	}
	r := decodeRoot(t, `{"users": [{"name": "bob", "uid": 5, "group": "shadow"}], "groups": [{"name": "shadow", "gid": 6}]}`)
	r.Etc = etc
	files, err := r.files()
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := writeTar(&archive, files, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	rest := tar.NewWriter(&archive)
	if err := rest.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "./nix/", Mode: 0o755}); err != nil {
		t.Fatal(err)
	}
	if err := rest.Close(); err != nil {
		t.Fatal(err)
	}

	got := map[string]string{}
	for reader := tar.NewReader(&archive); ; {
		header, err := reader.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(reader)
		if err != nil {
			t.Fatal(err)
		}
		if header.ModTime.Unix() > 1 {
			t.Errorf("%s is of %v", header.Name, header.ModTime)
		}
		got[header.Name] = fmt.Sprintf("%c %o %d:%d %s%s", header.Typeflag, header.Mode, header.Uid, header.Gid, header.Linkname, text)
	}
	for name, want := range map[string]string{
		"./etc/":         "5 755 0:0 ",
		"./etc/dir/":     "5 755 0:0 ",
		"./etc/dir/link": "2 777 0:0 /etc/static/dir/link",
		"./etc/units":    "2 777 0:0 /etc/static/units",
		"./etc/static":   "2 777 0:0 " + etc,
		"./etc/mtab":     "2 777 0:0 /proc/mounts",
		"./etc/secret":   "0 640 5:7 of the configuration",
		"./etc/tool":     "0 4755 0:6 of the configuration",
		"./etc/.clean":   "0 644 0:0 mtab\nsecret\ntool\n",
		"./etc/NIXOS":    "0 644 0:0 ",
		"./nix/":         "5 755 0:0 ",
	} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	for name := range got {
		if strings.HasSuffix(name, ".mode") || strings.HasSuffix(name, ".uid") || strings.HasSuffix(name, ".gid") {
			t.Errorf("%s should only say how another file is", name)
		}
	}

	writeFile(t, filepath.Join(etc, "secret.uid"), "nobody\n")
	if _, err := r.files(); err == nil || err.Error() != `/etc/secret: there is no user "nobody"` {
		t.Errorf("a file of nobody who exists: %v", err)
	}
}

func TestNumbersAreFinite(t *testing.T) {
	var a accounts
	for i := range lastSystemID - firstSystemID + 2 {
		a.Groups = append(a.Groups, group{Name: fmt.Sprint("g", i)})
	}
	if err := a.number(); err == nil || !slices.Contains(strings.Fields(err.Error()), "free") {
		t.Errorf("more groups than numbers: %v", err)
	}
}

func decodeRoot(t *testing.T, text string) *root {
	t.Helper()
	r := &root{}
	if err := json.Unmarshal([]byte(text), r); err != nil {
		t.Fatal(err)
	}
	r.Etc = t.TempDir()
	return r
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
