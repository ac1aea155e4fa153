package supervisor

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLogIsFollowedFromItsBeginningToItsEnd(t *testing.T) {
	l, err := newLogFile(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Write([]byte("one\n")); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		done <- l.Follow(context.Background(), w)
		w.Close()
	}()
	first := make([]byte, 4)
	if _, err := io.ReadFull(r, first); err != nil || string(first) != "one\n" {
		t.Fatalf("read %q, %v", first, err)
	}
	if _, err := l.Write([]byte("two\n")); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(r)
	if err != nil || string(rest) != "two\n" {
		t.Fatalf("read %q, %v", rest, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLogIsBoundedAndNothingIsLostToFollowers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := newLogFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := bytes.Repeat([]byte("x"), 1<<20)
	r, w := io.Pipe()
	go func() {
		_ = l.Follow(context.Background(), w)
		w.Close()
	}()
	buf := make([]byte, len(line))
	for range 12 { // in step with the follower, as rotation drops what nobody has read
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(r, buf); err != nil {
			t.Fatal(err)
		}
	}
	l.Close()
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		if err != nil {
			t.Fatal(err)
		}
		if info.Size() > maxLogSize {
			t.Errorf("%s has %d bytes, more than %d", p, info.Size(), maxLogSize)
		}
	}
}

func TestFollowEndsWithItsContext(t *testing.T) {
	l, err := newLogFile(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Follow(ctx, io.Discard); err != context.Canceled {
		t.Errorf("error %v, want that it was cancelled", err)
	}
}

func TestLastWordsOfAGuestSayWhyItIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	panicked := "[1] Run /init\n%s[2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200\n" +
		strings.Repeat("[2]  ? a_function+0x16/0xa0\n", 40)
	for _, tt := range []struct {
		what, text string
		n          int
		want       string
	}{
		{"an empty console", "", 3, ""},
		{"the end", "a\nb\nc\n", 2, "b\nc"},
		{"an end without a new line", "a\nb\nc", 2, "b\nc"},
		{"a short one", "a\n", 5, "a"},
		{"an endless line", strings.Repeat("y", 100<<10), 1, strings.Repeat("y", 8<<10)},
		{
			"a panic", fmt.Sprintf(panicked, "a\nb\n"), 3,
			"a\nb\n[2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200",
		},
		{
			"the end of the agent", fmt.Sprintf(panicked, "a\nfatal error: out of memory\n\n"+strings.Repeat("goroutine 1\n", 40)), 4,
			"fatal error: out of memory\n\ngoroutine 1\n[2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200",
		},
		{
			"a short end of the agent", fmt.Sprintf(panicked, "a\npanic: here\n"), 4,
			"panic: here\n[2] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200",
		},
	} {
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := consoleEnd(path, tt.n)
		if err != nil || got != tt.want {
			t.Errorf("%s: %.300q, %v; want %.300q", tt.what, got, err, tt.want)
		}
	}
}
