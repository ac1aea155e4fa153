package main

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
)

// inputs are a file, a pipe and a socket that hold a text, and a writing end.
func inputs(t *testing.T, text string) map[string][2]*os.File {
	t.Helper()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][2]*os.File{
		"file": {f, nil}, "pipe": {r, w},
		"socket": {os.NewFile(uintptr(pair[0]), "socket"), os.NewFile(uintptr(pair[1]), "socket")},
	}
	for name, ends := range all {
		t.Cleanup(func() { ends[0].Close() })
		if name == "file" {
			continue
		}
		if _, err := ends[1].WriteString(text); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[1].Close() })
	}
	return all
}

func rest(t *testing.T, ends [2]*os.File) string {
	t.Helper()
	if ends[1] != nil {
		ends[1].Close()
	}
	left, err := io.ReadAll(ends[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(left)
}

func TestInputThatACommandDoesNotReadStays(t *testing.T) {
	const text = "one\ntwo\nthree\n"
	for _, read := range []int{0, 4, 8} {
		for name, ends := range inputs(t, text) {
			in := commandInput(ends[0])
			buf := make([]byte, 1<<15)
			if n, err := in.Read(buf); err != nil || string(buf[:n]) != text {
				t.Errorf("%s: shows %q, %v", name, buf[:n], err)
			}
			in.(agent.Taker).Taken(int64(read))
			returnInput(in)
			if got := rest(t, ends); got != text[read:] {
				t.Errorf("%s: after the command read %d bytes, %q is left", name, read, got)
			}
			if n, err := in.Read(buf); n > 0 || err != io.EOF {
				t.Errorf("%s: reads %d bytes after the end, %v", name, n, err)
			}
		}
	}
}

func TestACommandThatReadsGetsAllInput(t *testing.T) {
	text := strings.Repeat("0123456789abcde\n", 1<<11) // less than a pipe holds
	for name, ends := range inputs(t, text) {
		in := commandInput(ends[0])
		taker := in.(agent.Taker)
		buf := make([]byte, 1<<15)
		n, err := in.Read(buf)
		if err != nil || (name != "file" && n > agent.FirstInput) {
			t.Fatalf("%s: the first read: %d bytes, %v", name, n, err)
		}
		got := string(buf[:n])
		more := make(chan string)
		go func() {
			if ends[1] != nil {
				ends[1].Close()
			}
			taker.Taken(int64(n))
			left, _ := io.ReadAll(in)
			more <- string(left)
		}()
		if got += <-more; got != text {
			t.Errorf("%s: %d bytes of %d", name, len(got), len(text))
		}
	}
}

func TestTheEndOfAShortPipeIsKnownAtOnce(t *testing.T) {
	ends := inputs(t, "short")["pipe"]
	ends[1].Close()
	in := commandInput(ends[0])
	if all, err := io.ReadAll(in); err != nil || string(all) != "short" { // and nobody says that it is read
		t.Errorf("%q, %v", all, err)
	}
	in.(agent.Taker).Taken(2)
	returnInput(in)
	if left, err := io.ReadAll(ends[0]); err != nil || string(left) != "ort" {
		t.Errorf("%q, %v", left, err)
	}
}
