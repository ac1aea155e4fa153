package progress_test

import (
	"bytes"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/progress"
)

func TestPlainLinesWithoutATerminal(t *testing.T) {
	var out bytes.Buffer
	s := progress.NewPlain(&out).Start("packing", 100)
	s.Note("first half")
	s.Note("first half")
	_, _ = io.Copy(s, strings.NewReader(strings.Repeat("x", 100)))
	s.Done()
	s.Fail()
	s.Note("too late")
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	want := []string{"packing…", "packing: first half", "packing: done (0s)"}
	if strings.Join(lines, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", lines, want)
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Errorf("control characters in %q", out.String())
	}
}

func TestAFileIsNoTerminal(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	s := progress.New(f).Start("waiting", 0)
	s.Fail()
	got, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(string(got), "waiting: failed (0s)\n") {
		t.Errorf("got %q", got)
	}
}

func TestNilReporterIsSilent(t *testing.T) {
	var r *progress.Reporter
	s := r.Start("nothing", 10)
	s.Note("still nothing")
	if n, err := s.Write([]byte("abc")); n != 3 || err != nil {
		t.Errorf("Write = %d, %v", n, err)
	}
	s.Done()
}

func Example() {
	step := progress.NewPlain(os.Stdout).Start("building", 0)
	step.Note("half way")
	defer step.Fail() // does nothing after Done
	// Output:
	// building…
	// building: half way
	// building: failed (0s)
}
