package layout

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestDefaultDirsFollowXDG(t *testing.T) {
	env := func(kv map[string]string) func(string) string { return func(k string) string { return kv[k] } }
	for _, tt := range []struct {
		name string
		env  map[string]string
		uid  int
		want Dirs
		err  string
	}{
		{
			name: "user", uid: 4242, env: map[string]string{"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/4242"},
			want: Dirs{Data: "/home/u/.local/share/sandbox", State: "/home/u/.local/state/sandbox", Cache: "/home/u/.cache/sandbox", Runtime: "/run/user/4242/sandbox"},
		},
		{
			name: "root", uid: 0, env: map[string]string{"HOME": "/root"},
			want: Dirs{Data: "/var/lib/sandbox", State: "/var/lib/sandbox/sandboxes", Cache: "/var/cache/sandbox", Runtime: "/run/sandbox"},
		},
		{
			name: "variables", uid: 0, env: map[string]string{"XDG_DATA_HOME": "/d", "XDG_STATE_HOME": "/s", "XDG_CACHE_HOME": "/c", "XDG_RUNTIME_DIR": "/r"},
			want: Dirs{Data: "/d/sandbox", State: "/s/sandbox", Cache: "/c/sandbox", Runtime: "/r/sandbox"},
		},
		{
			name: "no session", uid: 4242, env: map[string]string{"HOME": "/h"},
			want: Dirs{Data: "/h/.local/share/sandbox", State: "/h/.local/state/sandbox", Cache: "/h/.cache/sandbox", Runtime: "/h/.local/state/sandbox/.run"},
		},
		{name: "relative", uid: 4242, env: map[string]string{"HOME": "/h", "XDG_STATE_HOME": "s"}, err: "XDG_STATE_HOME"},
		{name: "no home", uid: 4242, env: map[string]string{}, err: "HOME"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := DefaultDirs(env(tt.env), tt.uid)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one that names %s", err, tt.err)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Fatalf("got %+v, %v\nwant %+v", got, err, tt.want)
			}
		})
	}
}

func TestNamesAreHostNames(t *testing.T) {
	for _, good := range []string{"a", "my-project", "x1", strings.Repeat("a", 63)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-a", "a-", "A", "a.b", "a/b", "..", "a b", "é", strings.Repeat("a", 64), "a\n"} {
		if CheckName(bad) == nil {
			t.Errorf("the name %q was accepted", bad)
		}
	}
}

func TestPrepareMakesPrivateDirectories(t *testing.T) {
	root := t.TempDir()
	d := Dirs{Data: root + "/d", State: root + "/s", Runtime: root + "/r", Cache: root + "/c"}
	if err := d.Prepare(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{d.Data, d.State, d.Runtime, d.Cache} {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, want 0700", dir, info.Mode().Perm())
		}
	}
}

// A machine without login sessions has a directory of a known name for each user
// in /tmp, if a program is careless, and whoever makes it first chooses what it is.
func TestPrepareLeavesAPlantedDirectoryAlone(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes files of another user: run it as root")
	}
	root := t.TempDir()
	tmp, home := root+"/tmp", root+"/home"
	const stranger = 54321
	err := errors.Join(os.Mkdir(tmp, 0o700), os.Chmod(tmp, 0o777|os.ModeSticky), os.MkdirAll(home+"/work", 0o755),
		os.WriteFile(home+"/work/thesis", []byte("years"), 0o644), os.Symlink(home, tmp+"/sandbox"), os.Lchown(tmp+"/sandbox", stranger, stranger))
	if err != nil {
		t.Fatal(err)
	}
	d := Dirs{Data: root + "/d", State: root + "/s", Runtime: tmp + "/sandbox", Cache: root + "/c"}
	if err := d.Prepare(); err == nil || !strings.Contains(err.Error(), "the link "+tmp+"/sandbox belongs to") || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("got %v, want a refusal with its remedy", err)
	}
	if info, err := os.Stat(home); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("the home has mode %v (%v)", info.Mode(), err)
	}
	if _, err := os.Stat(home + "/work/thesis"); err != nil {
		t.Error(err)
	}
}
