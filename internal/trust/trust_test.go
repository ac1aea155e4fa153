package trust

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// stranger is a user who is nobody here.
const stranger = 54321

// place is a directory in which everything below is the caller's alone.
func place(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("makes files of another user: run it as root")
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, err error, words ...string) {
	t.Helper()
	if foreign := (*Error)(nil); !errors.As(err, &foreign) {
		t.Fatalf("got %v, want a refusal", err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got %q, want the words %q", err, w)
		}
	}
}

func TestDirectoriesAreMadeForTheCallerOnly(t *testing.T) {
	root := place(t)
	do(t, os.Mkdir(root+"/real", 0o755), os.Symlink("real", root+"/relative"), os.Symlink(root+"/relative/../relative", root+"/absolute"))
	dir, err := MakeDir(root + "/absolute/a/b")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, made := range []string{"/real/a", "/real/a/b"} {
		info, err := os.Lstat(root + made)
		if err != nil || !info.IsDir() || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", made, info, err)
		}
	}
	again, err := MakeDir(root + "/real/a/b")
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestDirectoriesThatOthersMayWriteAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		make func(root string) error
		path string
		want string
	}{
		"everybody": {func(r string) error { return errors.Join(os.Mkdir(r+"/d", 0o700), os.Chmod(r+"/d", 0o777)) }, "/d", "chmod 700"},
		"everybody, and sticky": {func(r string) error {
			return errors.Join(os.Mkdir(r+"/d", 0o700), os.Chmod(r+"/d", 0o777|os.ModeSticky))
		}, "/d", "chmod 700"},
		"above": {func(r string) error { return errors.Join(os.Mkdir(r+"/d", 0o700), os.Chmod(r+"/d", 0o777)) }, "/d/e/f", "chmod o-w"},
		"behind a link": {func(r string) error {
			return errors.Join(os.Mkdir(r+"/d", 0o700), os.Chmod(r+"/d", 0o777), os.Symlink("d", r+"/l"))
		}, "/l/e", "chmod o-w"},
	} {
		t.Run(name, func(t *testing.T) {
			root := place(t)
			do(t, tt.make(root))
			_, err := MakeDir(root + tt.path)
			refused(t, err, tt.want, root+"/d")
		})
	}
	t.Run("a file", func(t *testing.T) {
		root := place(t)
		do(t, os.WriteFile(root+"/d", nil, 0o600))
		if _, err := MakeDir(root + "/d"); !errors.Is(err, unix.ENOTDIR) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("links in a circle", func(t *testing.T) {
		root := place(t)
		do(t, os.Symlink("b", root+"/a"), os.Symlink("a", root+"/b"))
		if _, err := MakeDir(root + "/a"); !errors.Is(err, unix.ELOOP) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("as /tmp", func(t *testing.T) {
		root := place(t)
		do(t, os.Mkdir(root+"/tmp", 0o700), os.Chmod(root+"/tmp", 0o777|os.ModeSticky))
		dir, err := MakeDir(root + "/tmp/d")
		if err != nil {
			t.Fatal(err)
		}
		dir.Close()
	})
}

func TestPlantedDirectoriesAreRefused(t *testing.T) {
	needRoot(t)
	for name, tt := range map[string]struct {
		plant func(tmp, victim string) error
		path  string
	}{
		"a link": {func(tmp, victim string) error {
			return errors.Join(os.Symlink(victim, tmp+"/d"), os.Lchown(tmp+"/d", stranger, stranger))
		}, "/d"},
		"a link above": {func(tmp, victim string) error {
			return errors.Join(os.Symlink(victim, tmp+"/d"), os.Lchown(tmp+"/d", stranger, stranger))
		}, "/d/made"},
		"a link to nowhere": {func(tmp, victim string) error {
			return errors.Join(os.Symlink(victim+"/made", tmp+"/d"), os.Lchown(tmp+"/d", stranger, stranger))
		}, "/d"},
		"a directory": {func(tmp, _ string) error {
			return errors.Join(os.Mkdir(tmp+"/d", 0o700), os.Chown(tmp+"/d", stranger, stranger))
		}, "/d"},
		"a directory above": {func(tmp, _ string) error {
			return errors.Join(os.Mkdir(tmp+"/d", 0o700), os.Chown(tmp+"/d", stranger, stranger))
		}, "/d/made"},
		"a group's": {func(tmp, _ string) error {
			return errors.Join(os.Mkdir(tmp+"/d", 0o700), os.Chown(tmp+"/d", -1, stranger), os.Chmod(tmp+"/d", 0o770))
		}, "/d"},
		"a directory within": {func(tmp, _ string) error {
			return errors.Join(os.MkdirAll(tmp+"/d/e", 0o700), os.Chown(tmp+"/d/e", stranger, stranger))
		}, "/d/e"},
	} {
		t.Run(name, func(t *testing.T) {
			root := place(t)
			tmp, victim := root+"/tmp", root+"/victim"
			do(t, os.Mkdir(tmp, 0o700), os.Chmod(tmp, 0o777|os.ModeSticky), os.Mkdir(victim, 0o755), os.Mkdir(victim+"/work", 0o755), tt.plant(tmp, victim))
			_, err := MakeDir(tmp + tt.path)
			refused(t, err, tmp+"/d")
			entries, err := os.ReadDir(victim)
			if err != nil || len(entries) != 1 {
				t.Errorf("the victim has %v, %v", entries, err)
			}
		})
	}
}

func TestFilesCountThatNobodyElsePutThere(t *testing.T) {
	needRoot(t)
	owners := Caller(func(string) string { return "" })
	for name, tt := range map[string]struct {
		spoil func(dir, file string) error
		want  string // empty: it counts
	}{
		"the caller's":          {func(string, string) error { return nil }, ""},
		"in a directory as tmp": {func(dir, _ string) error { return os.Chmod(dir, 0o777|os.ModeSticky) }, ""},
		"the caller's link": {func(dir, file string) error {
			return errors.Join(os.Rename(file, dir+"/other"), os.Symlink("other", file))
		}, ""},
		"a stranger's":           {func(_, file string) error { return os.Chown(file, stranger, stranger) }, "belongs to the user 54321"},
		"a stranger's directory": {func(dir, _ string) error { return os.Chown(dir, stranger, stranger) }, "belongs to the user 54321"},
		"a stranger's link": {func(dir, file string) error {
			return errors.Join(os.Rename(file, dir+"/other"), os.Symlink("other", file), os.Lchown(file, stranger, stranger))
		}, "belongs to"},
		"the caller's link to a stranger's file": {func(dir, file string) error {
			return errors.Join(os.Rename(file, dir+"/other"), os.Chown(dir+"/other", stranger, stranger), os.Symlink("other", file))
		}, "belongs to"},
		"written by all":           {func(_, file string) error { return os.Chmod(file, 0o666) }, "chmod o-w"},
		"written by a group":       {func(_, file string) error { return errors.Join(os.Chown(file, -1, stranger), os.Chmod(file, 0o660)) }, "chmod g-w"},
		"directory written by all": {func(dir, _ string) error { return os.Chmod(dir, 0o777) }, "chmod o-w"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := place(t) + "/project"
			file := dir + "/sandbox.toml"
			do(t, os.Mkdir(dir, 0o755), os.WriteFile(file, []byte("x"), 0o644), tt.spoil(dir, file))
			f, err := owners.Open(file)
			if tt.want != "" {
				refused(t, err, tt.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f.Close()
		})
	}
	t.Run("a fifo", func(t *testing.T) {
		file := place(t) + "/f"
		do(t, unix.Mkfifo(file, 0o600))
		if _, err := owners.Open(file); err == nil {
			t.Error("a fifo was opened")
		}
	})
	t.Run("nothing", func(t *testing.T) {
		if _, err := owners.Open(place(t) + "/f"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("who became root by sudo", func(t *testing.T) {
		file := place(t) + "/f"
		do(t, os.WriteFile(file, nil, 0o644), os.Chown(file, stranger, stranger), os.Chown(filepath.Dir(file), stranger, stranger))
		sudo := Caller(func(name string) string { return map[string]string{"SUDO_UID": "54321"}[name] })
		f, err := sudo.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
}

func TestGroupOfOneUser(t *testing.T) {
	const passwd = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbob:x:1001:100::/home/bob:/bin/sh\neve:x:1002:100::/home/eve:/bin/sh\n"
	for groups, want := range map[string]bool{
		"ann:x:1000:\n":                        true,
		"ann:x:1000:ann\n":                     true,
		"ann:x:1000:eve\n":                     false,
		"ann:x:1000:ann,eve\n":                 false,
		"ann:x:1000:\nstaff:x:1000:eve\n":      false,
		"other:x:1001:\n":                      false,
		"":                                     false,
		"damaged\nann:x:1000:\nothers:x:5:x,y": true,
	} {
		if got := aloneIn(1000, "ann", strings.NewReader(groups), strings.NewReader(passwd)); got != want {
			t.Errorf("%q: %v, want %v", groups, got, want)
		}
	}
	if aloneIn(100, "bob", strings.NewReader("users:x:100:\n"), strings.NewReader(passwd)) {
		t.Error("a group that is another user's, too, was taken for bob's own")
	}
}

func TestUserNamespaces(t *testing.T) {
	for uidMap, want := range map[string]bool{
		"         0          0 4294967295\n": true,
		"         0       1000          1\n": false,
		"0 1000 1\n1 100000 65536\n":         false,
		"":                                   false,
	} {
		if got := allMapped(strings.NewReader(uidMap)); got != want {
			t.Errorf("%q: %v, want %v", uidMap, got, want)
		}
	}
}
