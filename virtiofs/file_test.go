package virtiofs

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/virtiofstest"
)

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestParseShareOfAFile(t *testing.T) {
	dir := resolvedTempDir(t)
	writeFile(t, dir+"/.env", "")
	for spec, want := range map[string]string{
		".env":                             dir + "/.env:.env",
		".env:etc/env:ro":                  dir + "/.env:etc/env:ro",
		".env:rules=none":                  dir + "/.env:.env",
		".env:x:ro,rules=safe":             dir + "/.env:x:ro,rules=safe",
		".env:rules=safe,hide=x":           dir + "/.env:.env:rules=safe,hide=x",
		".env:rules=safe,allow=.env":       dir + "/.env:.env:rules=safe,allow=.env",
		"sub/../.env:same-path,rules=safe": dir + "/.env:" + dir + "/.env:rules=safe",
	} {
		got, err := ParseShare(spec, dir)
		if err != nil || !got.File || got.Rules.None == strings.Contains(spec, "safe") || got.String() != want {
			t.Errorf("ParseShare(%q) = %+v, %v; want %q", spec, got, err, want)
		}
		if again, err := ParseShare(got.String(), "/elsewhere"); err != nil || again.String() != want {
			t.Errorf("ParseShare(%q) = %+v, %v", want, again, err)
		}
	}
	for spec, want := range map[string]string{
		".env:cow":     "a file cannot be copy-on-write",
		".env:allow=x": "nothing that allow= could allow",
	} {
		if _, err := ParseShare(spec, dir); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseShare(%q): %v; want %q", spec, err, want)
		}
	}
}

func TestAdmittedFile(t *testing.T) {
	dir := resolvedTempDir(t)
	home := mkdir(t, dir, "home")
	writeFile(t, dir+"/file", "one")
	writeFile(t, home+"/.netrc", "")
	o := CheckOptions{Home: home}
	share, err := Share{Source: dir + "/file", File: true}.Admit(o)
	if err != nil {
		t.Fatal(err)
	}
	open := func() error {
		file, err := share.Open(o)
		if err == nil {
			err = file.Close()
		}
		return err
	}
	// As editors save a file.
	writeFile(t, dir+"/new", "two")
	if err := errors.Join(os.Rename(dir+"/new", dir+"/file"), open()); err != nil || share.Changed() != "" {
		t.Errorf("a file that was saved: %v, %q", err, share.Changed())
	}
	for what, do := range map[string]func() error{
		"is a symbolic link now":             func() error { return os.Symlink("/etc/passwd", dir+"/file") },
		"does not exist":                     func() error { return nil },
		"was a file when it was shared":      func() error { return os.Mkdir(dir+"/file", 0o755) },
		"was a file when it was shared, and": func() error { return unix.Mkfifo(dir+"/file", 0o644) },
	} {
		if err := errors.Join(os.RemoveAll(dir+"/file"), do()); err != nil {
			t.Fatal(err)
		}
		if err := open(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v; want %q", err, what)
		}
	}
	if err := os.RemoveAll(dir + "/file"); err != nil || share.Changed() == "" {
		t.Error("it is not told that the file is gone")
	}
	_, err = Share{Source: home + "/.netrc", File: true}.Admit(o)
	if danger, ok := errors.AsType[*DangerError](err); !ok || danger.Danger != home+"/.netrc" {
		t.Errorf("a login: %v", err)
	}
}

func TestArrangeFiles(t *testing.T) {
	dir := resolvedTempDir(t)
	mkdir(t, dir, "project", "etc")
	writeFile(t, dir+"/project/etc/there", "")
	writeFile(t, dir+"/file", "")
	project, file := Share{Source: dir + "/project", Target: "p"}, Share{Source: dir + "/file", File: true}
	for target, want := range map[string]string{
		"p/etc/there": "",
		"elsewhere":   "",
		"p/etc/new":   "where there is no such file: make it (touch " + dir + "/project/etc/new)",
		"p/etc":       "where there is no such file",
		"/etc/passwd": "it would hide the guest's own files in /etc",
	} {
		file.Target = target
		if _, err := Arrange([]Share{file, project}, "/home/agent"); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v; want %q", target, err, want)
		}
	}
	file.Target, project.Target = "p", "p/in"
	if _, err := Arrange([]Share{file, project}, "/home/agent"); err == nil || !strings.Contains(err.Error(), "which is a file: choose another place") {
		t.Errorf("in a file: %v", err)
	}
}

// fileConfig shares one of two files in a directory.
func fileConfig(t *testing.T, uid int) (c ServerConfig, dir string) {
	t.Helper()
	c = realConfig(t, uid)
	dir = c.Directory.Path()
	for _, name := range []string{"file", "other"} {
		writeFile(t, filepath.Join(dir, name), "old")
		if err := os.Chown(filepath.Join(dir, name), uid, c.HostGID); err != nil {
			t.Fatal(err)
		}
	}
	file, err := hostdir.OpenFile(dir + "/file")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	c.Directory = file
	return c, dir
}

// checkOnlyFile makes sure that a guest sees and changes the file and nothing else.
func checkOnlyFile(t *testing.T, g guest, dir string, readOnly bool) {
	t.Helper()
	for _, name := range []string{"other", "..", "src"} {
		if _, err := g.Lookup(virtiofstest.Root, name); !errors.Is(err, unix.ENOENT) && name != ".." {
			t.Errorf("looking up %s: %v", name, err)
		}
	}
	if above, err := g.Lookup(virtiofstest.Root, ".."); err == nil {
		if _, err := g.Lookup(above, "src"); !errors.Is(err, unix.ENOENT) {
			t.Errorf("the directory above is seen: %v", err)
		}
	}
	for what, err := range map[string]error{
		"create":    g.create("new"),
		"mkdir":     g.mkdir("new"),
		"rename":    g.rename("file", "new", 0),
		"link":      g.link("file", "new"),
		"unlink":    g.unlink("file"),
		"symlink":   g.symlink("new", "/etc"),
		"root mode": g.Setattr(virtiofstest.Root, virtiofstest.Attr{Mode: new(uint32(0o777))}),
	} {
		if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.EXDEV) && !errors.Is(err, unix.EACCES) {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := g.write("file", "new")
	want := "new"
	if readOnly {
		want = "old"
	}
	text, readErr := os.ReadFile(filepath.Join(dir, "file"))
	if readOnly != (err != nil) || string(text) != want || readErr != nil {
		t.Errorf("writing: %v, and it holds %q, %v", err, text, readErr)
	}
}

func TestServerOfAFileShowsNothingElse(t *testing.T) {
	uids := []int{os.Geteuid()}
	if uids[0] == 0 {
		uids = append(uids, nobody)
	}
	for _, uid := range uids {
		for _, how := range []string{"", "read-only", "judged"} {
			c, dir := fileConfig(t, uid)
			c.ReadOnly = how == "read-only"
			if how == "judged" {
				c.Judge = testJudge{}
			}
			s, err := realDaemon(t).Start(t.Context(), c)
			skipWithoutGate(t, err)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("%d, %s, isolation: %s", uid, how, s.Isolation())
			g := guest{connect(t, c.Socket), t}
			checkOnlyFile(t, g, dir, c.ReadOnly)
			share := Share{Source: dir + "/file", File: true}
			if what := s.Changed(share); what != "" {
				t.Errorf("it %s", what)
			}
			// What takes its place on the host is not followed.
			writeFile(t, dir+"/next", "next")
			if err := os.Rename(dir+"/next", dir+"/file"); err != nil {
				t.Fatal(err)
			}
			if what := s.Changed(share); what != "is another file now" {
				t.Errorf("it %s", what)
			}
			if !c.ReadOnly {
				if err := g.write("file", "lost"); err != nil {
					t.Error(err)
				}
			}
			if text, err := os.ReadFile(dir + "/file"); string(text) != "next" {
				t.Errorf("the new file holds %q, %v", text, err)
			}
			stop(t, s)
		}
	}
}

func TestServerOfAJudgedFileAsksByItsName(t *testing.T) {
	c, dir := fileConfig(t, os.Geteuid())
	if err := os.Rename(dir+"/file", dir+"/frozen"); err != nil {
		t.Fatal(err)
	}
	file, err := hostdir.OpenFile(dir + "/frozen")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	c.Directory = file
	told := &events{}
	g := serveJudged(t, c, told)
	if err := g.write("frozen", "new"); !errors.Is(err, unix.EACCES) {
		t.Errorf("%v, %s", err, told.take())
	}
}

// A file is served as root where there are no user namespaces, and else not at all.
func TestServerOfAFileInEachIsolation(t *testing.T) {
	needRoot(t)
	for name, uid := range map[string]int{"root": 0, "user": nobody} {
		t.Run(name, func(t *testing.T) {
			c, dir := fileConfig(t, uid)
			order := helperOrder{Daemon: realDaemon(t), Config: c, NoNamespaces: true, UID: uid}
			order.Config.AllowUnconfined = true
			h := startHelper(t, order, inNamespace(0, nobody))
			switch {
			case uid == 0 && h.Error == "":
				t.Log("isolation:", h.Isolation)
				checkOnlyFile(t, guest{connect(t, c.Socket), t}, dir, false)
			case !strings.Contains(h.Error, "share a directory that holds just the file"):
				t.Errorf("isolation %q, %s", h.Isolation, h.Error)
			}
		})
	}
	t.Run("ordinary user", func(t *testing.T) {
		c, dir := fileConfig(t, nobody)
		h := startHelper(t, helperOrder{Daemon: realDaemon(t), Config: c}, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
		if h.Error != "" {
			t.Fatal(h.Error)
		}
		checkOnlyFile(t, guest{connect(t, c.Socket), t}, dir, false)
	})
}

// Somebody changes where the paths lead before they are followed: that of the file, and that of the directory of which
// virtiofsd makes its root.
func TestServerOfAFileDoesNotServeWhatTakesItsPlace(t *testing.T) {
	daemon := realDaemon(t)
	for name, swap := range map[string]string{
		"another file":       `mv file kept; cp other file`,
		"symbolic link":      `mv file kept; ln -s other file`,
		"directory":          `mkdir ../more; ln file other ../more`,
		"directory with one": `mkdir ../more; ln file ../more`,
	} {
		c, dir := fileConfig(t, os.Geteuid())
		if out, err := exec.Command("sh", "-c", "cd "+dir+"; "+swap).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		d := daemon
		if strings.HasPrefix(name, "directory") {
			d = fake(t, fmt.Sprintf(`for a; do case $a in --shared-dir=*) a='--shared-dir=%s/../more';; esac; set -- "$@" "$a"; shift; done; exec '%s' "$@"`, dir, daemon.Path))
		}
		s, err := d.Start(t.Context(), c)
		if err == nil {
			stop(t, s)
		}
		if _, ok := errors.AsType[*ChangedError](err); !ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}
