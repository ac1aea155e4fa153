package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/network/secret"
)

// hiddenTerminal has readSecret ask on a terminal, calls answer with the other end once it has, and returns what became
// of it and what the terminal has shown.
func hiddenTerminal(t *testing.T, ctx context.Context, answer func(person *os.File)) (v secret.Value, shown string, err error) {
	t.Helper()
	person, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer terminal.Close()
	mode := func() uint32 {
		settings, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		return settings.Lflag
	}
	before := mode()
	asked := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-asked
		for mode()&unix.ECHO != 0 { // what is typed before is shown
			runtime.Gosched()
		}
		answer(person)
	}()
	var question bytes.Buffer
	v, err = readSecret(ctx, "K", terminal, io.MultiWriter(&question, writerFunc(func() { close(asked) })))
	<-done
	if mode() != before {
		t.Error("the terminal is not as it was")
	}
	if question.String() != "K, which is not shown: \n" {
		t.Errorf("it asks %q", question.String())
	}
	// What comes last ends what the terminal has shown.
	const last = "the end"
	if _, err := terminal.WriteString(last); err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	for buf := make([]byte, 8192); !strings.Contains(screen.String(), last); {
		n, err := person.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		screen.Write(buf[:n])
	}
	return v, screen.String(), err
}

// writerFunc is called for the first write.
func writerFunc(first func()) io.Writer { return &firstWrite{first: first} }

type firstWrite struct{ first func() }

func (w *firstWrite) Write(p []byte) (int, error) {
	if w.first != nil {
		w.first()
		w.first = nil
	}
	return len(p), nil
}

func TestASecretIsNotShownWhileItIsTyped(t *testing.T) {
	v, shown, err := hiddenTerminal(t, t.Context(), func(person *os.File) {
		if _, err := person.WriteString("s3cr3t\n"); err != nil {
			t.Error(err)
		}
	})
	if err != nil || v.Reveal() != "s3cr3t" || strings.Contains(shown, "s3cr3t") {
		t.Errorf("%q, %v; shown: %q", v.Reveal(), err, shown)
	}
}

// TestALineThatATerminalCutsOffIsNoSecret: half a token is refused by its host at some later time.
func TestALineThatATerminalCutsOffIsNoSecret(t *testing.T) {
	v, _, err := hiddenTerminal(t, t.Context(), func(person *os.File) {
		if _, err := person.WriteString(strings.Repeat("x", 5000) + "\n"); err != nil {
			t.Error(err)
		}
	})
	if err == nil || !strings.Contains(err.Error(), "give it by standard input") || !v.IsZero() {
		t.Errorf("%v, %v", v, err)
	}
}

func TestWhoIsAskedForASecretCanLeave(t *testing.T) {
	left := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, _, err := hiddenTerminal(t, ctx, func(*os.File) { cancel(left) })
	if !errors.Is(err, left) {
		t.Errorf("it ends with %v", err)
	}
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	if v, err := readSecret(ctx, "K", in, io.Discard); !errors.Is(err, left) {
		t.Errorf("of a pipe into which nobody writes: %v, %v", v, err)
	}
}
