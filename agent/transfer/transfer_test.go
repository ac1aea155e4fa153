//go:build linux

package transfer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/agenttest"
)

func TestMain(m *testing.M) {
	agenttest.RunSelf()
	os.Exit(m.Run())
}

// sending is an agent program that sends a stream whatever it is asked for.
func sending(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	stream, program := filepath.Join(dir, "stream"), filepath.Join(dir, "agent")
	if err := errors.Join(os.WriteFile(stream, b.Bytes(), 0o644), os.WriteFile(program, []byte("#!/bin/sh\nexec cat "+stream+"\n"), 0o755)); err != nil {
		t.Fatal(err)
	}
	return program
}

func TestAgentThatLiesIsFoundOut(t *testing.T) {
	directory := tar.Header{Name: "tree/", Typeflag: tar.TypeDir, Mode: 0o755}
	for name, evil := range map[string]tar.Header{
		"out of the destination": {Name: "tree/../../evil", Typeflag: tar.TypeReg, Mode: 0o644},
		"something else":         {Name: "evil", Typeflag: tar.TypeReg, Mode: 0o644},
		"an absolute path":       {Name: "/tmp/evil", Typeflag: tar.TypeReg, Mode: 0o644},
	} {
		t.Run(name, func(t *testing.T) {
			agent := agenttest.NewServer(t)
			agent.Config.Self = sending(t, directory, evil)
			root := t.TempDir()
			err := From(t.Context(), agent.Client(t), "tree", filepath.Join(root, "dest"), Options{})
			if err == nil || !strings.Contains(err.Error(), "nothing more is copied") {
				t.Errorf("error %v", err)
			}
			if entries, err := os.ReadDir(root); err != nil || len(entries) > 1 {
				t.Errorf("%v, %v", entries, err)
			}
		})
	}
}

func TestImageWhoseAgentCannotCopy(t *testing.T) {
	old := agenttest.NewServer(t)
	old.Config.Self = "/no/such/program"
	client := old.Client(t)
	for _, err := range []error{
		From(t.Context(), client, "f", t.TempDir(), Options{}),
		To(t.Context(), client, "transfer_test.go", "f", Options{}),
	} {
		if old, ok := errors.AsType[*agent.UnsupportedError](err); !ok || old.Feature != agent.FeatureCopy {
			t.Errorf("error %v, want that the agent is too old", err)
		}
	}
}

func TestCopiesThroughTheAgent(t *testing.T) {
	server := agenttest.NewServer(t)
	client, home := server.Client(t), server.Home
	var notes []string
	options := Options{Note: func(text string) { notes = append(notes, text) }}
	upload := func(source, dest string) error { return To(t.Context(), client, source, dest, options) }
	download := func(source, dest string) error { return From(t.Context(), client, source, dest, options) }
	here := t.TempDir()
	t.Chdir(here)
	run := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const size = 600 << 20
	run(os.MkdirAll("tree/sub", 0o755))
	run(os.WriteFile("tree/sub/f", []byte("text"), 0o640))
	run(os.WriteFile("tree/hole", nil, 0o600))
	run(os.Truncate("tree/hole", size))
	run(os.Symlink("f", "tree/sub/l"))

	run(upload("tree", "."))
	run(download("tree", "back"))
	for _, dir := range []string{filepath.Join(home, "tree"), "back"} {
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, "hole"), &st); err != nil || st.Size != size || st.Blocks != 0 {
			t.Errorf("%s/hole: %d bytes take %d blocks, %v", dir, st.Size, st.Blocks, err)
		}
		if target, err := os.Readlink(filepath.Join(dir, "sub/l")); target != "f" {
			t.Errorf("%s/sub/l leads to %q, %v", dir, target, err)
		}
		if info, err := os.Stat(filepath.Join(dir, "sub/f")); err != nil || info.Mode() != 0o640 {
			t.Errorf("%s/sub/f: %v, %v", dir, info, err)
		}
	}

	// Pipes and devices, on both sides.
	run(unix.Mkfifo("fifo", 0o600))
	run(unix.Mkfifo(filepath.Join(home, "fifo"), 0o600))
	got := make(chan string, 1)
	read := func(path string) {
		text, err := os.ReadFile(path)
		got <- fmt.Sprint(string(text), err)
	}
	go read("fifo")
	run(download("tree/sub/f", "fifo"))
	if text := <-got; text != "text<nil>" {
		t.Errorf("a pipe of this machine got %q", text)
	}
	go read(filepath.Join(home, "fifo"))
	run(upload("tree/sub/f", "fifo"))
	if text := <-got; text != "text<nil>" {
		t.Errorf("a pipe of the guest got %q", text)
	}
	for path, copied := range map[string]func(string) error{
		"fifo":                      func(to string) error { return upload("fifo", to) },
		filepath.Join(home, "fifo"): func(to string) error { return download("fifo", to) },
	} {
		go func() { _ = os.WriteFile(path, []byte("sent"), 0) }()
		run(copied("from-pipe"))
	}
	for _, dir := range []string{home, here} {
		if text, err := os.ReadFile(filepath.Join(dir, "from-pipe")); string(text) != "sent" {
			t.Errorf("%s: from a pipe came %q, %v", dir, text, err)
		}
		if info, err := os.Lstat(filepath.Join(dir, "fifo")); err != nil || info.Mode().Type() != os.ModeNamedPipe {
			t.Errorf("%s/fifo has become %v, %v", dir, info, err)
		}
	}
	run(upload("tree/sub/f", "/dev/null"))
	run(download("/proc/cpuinfo", "cpuinfo"))
	if info, err := os.Stat("cpuinfo"); err != nil || info.Size() == 0 {
		t.Errorf("%v, %v", info, err)
	}

	// What was left out is noted, and who refused is said.
	run(os.Rename(filepath.Join(home, "fifo"), filepath.Join(home, "tree/fifo")))
	run(download("tree/.", "noted"))
	if !slices.Contains(notes, "fifo is no file, directory or link, and is left out") {
		t.Errorf("the notes are %q", notes)
	}
	if err := download("none", "."); err == nil || !strings.Contains(err.Error(), "in the sandbox: open none: no such file") {
		t.Errorf("error %v", err)
	}
	if err := upload("fifo", "none/f"); err == nil || !strings.Contains(err.Error(), "in the sandbox: open none: no such file") {
		t.Errorf("with a pipe that nobody writes to: error %v", err)
	}
	if fd, err := unix.Open("fifo", unix.O_RDWR|unix.O_NONBLOCK, 0); err == nil { // for the copy that waits for it still
		unix.Close(fd)
	}
	run(os.Symlink("tree", "link"))
	for _, err := range []error{upload("link/.", "stolen"), download("tree", "link")} {
		if err == nil || !strings.Contains(err.Error(), "link is a link to tree") {
			t.Errorf("error %v", err)
		}
	}
	if _, err := os.Lstat(filepath.Join(home, "stolen")); err == nil {
		t.Error("what a link leads to was sent")
	}
}

func TestNamesOfSources(t *testing.T) {
	for s, want := range map[string]string{
		"/etc/hosts": "hosts", "/etc/": "etc", "/etc/.": ".", "/": ".", ".": ".", "a": "a", "./a/b/": "b", "..": ".", "a/..": ".", "-x": "-x",
	} {
		if name := nameThere(s); name != want {
			t.Errorf("the guest's %q is %q, want %q", s, name, want)
		}
	}
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[string]string{
		"/etc/hosts": "hosts", "/etc/": "etc", "/etc/.": ".", "/": ".", ".": ".", "a/./b": "b", "..": filepath.Base(filepath.Dir(here)), "/dev/fd/63": "63",
	} {
		if name, err := nameHere(s); name != want || err != nil {
			t.Errorf("this machine's %q is %q, %v; want %q", s, name, err, want)
		}
	}
}
