package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/gateway"
)

func TestNetworkLogGoesOnInTheNextFile(t *testing.T) {
	s := create(t, testHost(t), "work")
	if err := s.NetworkLog(t.Context(), false, func(gateway.Entry) error { t.Error("a sandbox that was never started has a log"); return nil }); err != nil {
		t.Error(err)
	}
	path := s.Files().Log(layout.NetworkLog)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	line := func(n int) string { return fmt.Sprintf(`{"msg":"connection","proto":"tcp","port":%d}`+"\n", n) }
	appended := func(text string) {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	rotate := func() {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
	}
	// A line is cut in two where a file is full.
	appended(line(1) + line(2)[:20])
	rotate()
	appended(line(2)[20:] + "panic: 3\n" + line(4)[:5])
	text := func(e gateway.Entry) string {
		if e.Message != gateway.MessageConnection {
			return e.Message
		}
		return fmt.Sprint(e.Port)
	}
	var got []string
	if err := s.NetworkLog(t.Context(), false, func(e gateway.Entry) error { got = append(got, text(e)); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{"1", "2", "panic: 3", line(4)[:5]}; !slices.Equal(got, want) {
		t.Errorf("it reads %q, want %q", got, want)
	}

	// Who begins now sees only what comes, also across files.
	tail, err := s.TailNetworkLog()
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	added := func(want ...string) {
		t.Helper()
		got = nil
		if err := tail.Read(func(e gateway.Entry) error { got = append(got, text(e)); return nil }); err != nil || !slices.Equal(got, want) {
			t.Errorf("what was added is %q, %v, want %q", got, err, want)
		}
	}
	added()
	appended(line(40) + line(41))
	added("40", "41")
	appended(line(42))
	rotate()
	appended(line(43))
	rotate() // there is nothing left of the file that was read last
	appended(line(44))
	added("42", "43", "44")
	added()
	rotate()
	added() // nor is there another one yet
	if err := os.Remove(path + ".1"); err != nil {
		t.Fatal(err)
	}
	appended(line(1) + line(2) + "panic: 3\n" + line(4)[:5])

	// Who follows sees what comes, also across files, until the sandbox ends.
	lock, err := flock.Try(s.Files().Path(layout.LockFile), true)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	entries := make(chan string)
	done := make(chan error, 1)
	go func() {
		done <- s.NetworkLog(ctx, true, func(e gateway.Entry) error { entries <- text(e); return nil })
	}()
	for _, want := range []string{"1", "2", "panic: 3"} {
		if got := <-entries; got != want {
			t.Errorf("it follows with %q, want %q", got, want)
		}
	}
	appended(line(4)[5:])
	if got := <-entries; got != "4" {
		t.Errorf("then comes %q", got)
	}
	appended(line(5))
	rotate()
	appended(line(6))
	for _, want := range []string{"5", "6"} {
		if got := <-entries; got != want {
			t.Errorf("it goes on with %q, want %q", got, want)
		}
	}
	appended(line(7))
	lock.Close()
	if got := <-entries; got != "7" {
		t.Errorf("at the end comes %q", got)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
