package confine

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/process"
)

func TestMain(m *testing.M) {
	if os.Args[0] == launcherName {
		// Go's runtime waits by a file that it opens with the first timer, which in a launcher is its own, at any time.
		go func() {
			for {
				time.Sleep(time.Millisecond)
			}
		}()
		time.Sleep(time.Millisecond)
	}
	Main()
	switch os.Args[0] {
	case selfTest:
		trySelf()
		os.Exit(0)
	case listenerTest:
		asksForListener()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// room is one for the program at the path.
func room(t *testing.T, path string) *Room {
	t.Helper()
	parts, err := FindParts(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	user, err := ChooseUser(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return &Room{Paths: parts.Paths(), Executes: parts.Executes(), User: user}
}

func TestProgramSeesOnlyItsParts(t *testing.T) {
	var out bytes.Buffer
	program := Program{Path: "/bin/bash", Args: []string{"-c", "echo /*; echo /dev/*; echo /usr/*; echo /etc/*; echo $HOME"}, Stdout: &out}
	p, _, err := Start(t.Context(), program, Spec{Room: room(t, "/bin/bash")}, process.Options{Log: &out})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if got, want := out.String(), "/dev /etc /lib /lib64 /proc /usr\n/dev/null /dev/urandom /dev/zero\n/usr/bin /usr/lib\n/etc/ld.so.cache\n\n"; got != want || p.Err() != nil {
		t.Errorf("the program sees %q, %v; want %q", got, p.Err(), want)
	}
}

// start starts the program in this way only.
func (w way) start(t *testing.T, p Program, r *Room) (*process.Process, error) {
	t.Helper()
	l := Launcher{ctx: t.Context(), program: p, spec: Spec{Room: r}}
	next, err := l.launch(w)
	if err != nil {
		return nil, err
	}
	_, err = next.run(w, p, l.spec)
	return next.process, err
}

// shell runs a script of bash's own commands in the way, and returns what it wrote.
func shell(t *testing.T, w way, r *Room, script string, files ...File) string {
	t.Helper()
	var out bytes.Buffer
	program := Program{Path: "/bin/bash", Args: []string{"-c", "exec 2>&1; " + script}, Env: []string{"LC_ALL=C"}, Stdout: &out, Files: files}
	p, err := w.start(t, program, r)
	if _, ok := errors.AsType[*closedError](err); ok {
		t.Skipf("this machine does not offer it: %v: %s", err, Remedy)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	return out.String()
}

// keys makes a file that the program's user owns, and returns it opened for reading.
func keys(t *testing.T, r *Room) *os.File {
	t.Helper()
	dir, err := os.MkdirTemp("", "confine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := dir + "/keys"
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, []byte("secret\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	if r.User != nil {
		if err := os.Chown(path, int(r.User.ID), int(r.User.ID)); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// userNamespace and landlockAlone are the first and the last way.
var (
	userNamespace = way{name: "a user namespace", namespaces: true, userspace: true}
	landlockAlone = way{}
)

func TestOwnRootHidesFiles(t *testing.T) {
	r := room(t, "/bin/bash")
	if got := shell(t, userNamespace, r, "read x <"+keys(t, r).Name()); !strings.Contains(got, "No such file") {
		t.Errorf("the program found a file of its user's: %q", got)
	}
}

func TestLandlockAloneHidesFiles(t *testing.T) {
	if landlockVersion() == 0 {
		t.Skip("the kernel has no Landlock: " + Remedy)
	}
	r := room(t, "/bin/bash")
	got := shell(t, landlockAlone, r, "read x <"+keys(t, r).Name()+"; echo $x; read x </etc/passwd; echo $x; kill -0 $PPID")
	if strings.Count(got, "Permission denied") != 2 || strings.Contains(got, "secret") || strings.Contains(got, "root") {
		t.Errorf("the program could read files: %q", got)
	}
}

// Whatever its user owns: what a program is given to be read, it cannot write to.
func TestWhatIsReadOnlyStaysSo(t *testing.T) {
	for name, tt := range map[string]struct {
		way  way
		path bool // the mount is what is tested
		want string
	}{
		"by a read-only mount": {userNamespace, true, "Read-only file system"},
		"by Landlock":          {landlockAlone, false, "Permission denied"},
	} {
		t.Run(name, func(t *testing.T) {
			if landlockVersion() == 0 && !tt.path {
				t.Skip("the kernel has no Landlock: " + Remedy)
			}
			r := room(t, "/bin/bash")
			f := File{File: keys(t, r), Reopen: Read}
			if tt.path {
				f.Path = f.Name()
			}
			got := shell(t, tt.way, r, "read x </proc/self/fd/3; echo $x; echo no >>/proc/self/fd/3", f)
			if !strings.HasPrefix(got, "secret\n") || !strings.Contains(got, tt.want) {
				t.Errorf("the program was told %q", got)
			}
		})
	}
}

func TestFileThatTookAnothersPlaceIsRefused(t *testing.T) {
	r := room(t, "/bin/bash")
	f := File{File: keys(t, r), Reopen: Read}
	f.Path = keys(t, r).Name()
	program := Program{Path: "/bin/bash", Args: []string{"-c", ":"}, Files: []File{f}}
	_, err := userNamespace.start(t, program, r)
	var closed *closedError
	if err == nil || !strings.Contains(err.Error(), "another file has taken its place") || errors.As(err, &closed) {
		t.Errorf("Start = %v", err)
	}
}

func TestTooFewWallsAreRefused(t *testing.T) {
	var weak *WeakError
	if err := (way{}).enough(&Room{}, 0); !errors.As(err, &weak) {
		t.Errorf("nothing at all: %v", err)
	}
	for name, err := range map[string]error{
		"namespaces":     way{namespaces: true}.enough(&Room{}, 0),
		"Landlock":       way{}.enough(&Room{}, 1),
		"another user":   way{}.enough(&Room{User: &User{ID: 7}}, 0),
		"it was allowed": way{}.enough(&Room{AllowWeak: true}, 0),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEndOfALauncherSaysWhy(t *testing.T) {
	_, _, err := Start(t.Context(), Program{Path: "/bin/nonexistent"}, Spec{}, process.Options{})
	if err == nil || !strings.Contains(err.Error(), "executing /bin/nonexistent: no such file") {
		t.Errorf("Start = %v", err)
	}
}

func TestLauncherWaits(t *testing.T) {
	var out bytes.Buffer
	l := Ready(t.Context(), Program{Path: "/bin/bash", Stdout: &out}, Spec{Room: room(t, "/bin/bash")}, process.Options{})
	var files []File
	for range fileBatch + 1 { // more than a message takes
		f, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, File{File: f})
	}
	last := firstFile + len(files) - 1
	p, _, err := l.Start([]string{"-c", fmt.Sprintf("[[ -e /proc/self/fd/%d && ! -e /proc/self/fd/%d ]] && echo yes", last, last+1)}, files)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if out.String() != "yes\n" {
		t.Errorf("the program has other files than it was given: %q", out.String())
	}
	l.Close()
}

func TestLauncherThatIsNotNeededEnds(t *testing.T) {
	l := Ready(t.Context(), Program{Path: "/bin/bash"}, Spec{Room: room(t, "/bin/bash")}, process.Options{})
	<-l.begun
	p := l.first.process
	l.Close()
	<-p.Done()
	l.Close()
	(*Launcher)(nil).Close()
}
