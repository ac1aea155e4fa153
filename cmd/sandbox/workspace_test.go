package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/workspace"
)

// workspaceOf is a guest that has added files with these names, each with its name as its content.
type workspaceOf []string

func (w workspaceOf) List(_ context.Context, visit func(agent.WorkspaceEntry) error) error {
	for _, name := range w {
		if err := visit(agent.WorkspaceEntry{Path: name, Mode: 0o644, Size: int64(len(name))}); err != nil {
			return err
		}
	}
	return nil
}

func (w workspaceOf) Read(_ context.Context, path string, to io.Writer) error {
	_, err := io.WriteString(to, path)
	return err
}

func (w workspaceOf) Sum(_ context.Context, path string) ([32]byte, error) {
	return sha256.Sum256([]byte(path)), nil
}
func (w workspaceOf) Keep(context.Context, string) error    { return nil }
func (w workspaceOf) Restore(context.Context, string) error { return nil }
func (w workspaceOf) Refresh(context.Context) error         { return nil }

func TestApplyAsksForEachFile(t *testing.T) {
	for name, test := range map[string]struct{ typed, taken string }{
		"one by one":              {"y\nn\ny\n", "one three"},
		"all from the second on":  {"n\na\n", "two three"},
		"none from the second on": {"y\nq\n", "one"},
		"the end of the input":    {"y\n", "one"},
		"the difference first":    {"d\ny\nn\nn\n", "one"},
		"words that mean nothing": {"perhaps\n\nY\nno\nYES\n", "one three"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := hostdir.Resolve(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			host, err := hostdir.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			w := &machine.Workspace{Share: workspace.Share{
				Guest: workspaceOf{"one", "two", "three"}, Host: host, Record: &workspace.Record{Since: time.Now()},
			}}
			changes, err := w.Changes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var out, notes bytes.Buffer
			a := applying{in: bufio.NewReader(strings.NewReader(test.typed)), out: &out, notes: &notes}
			if err := a.run(t.Context(), []changedShare{{w, changes, changes}}); err != nil {
				t.Fatal(err)
			}
			var taken []string
			for _, name := range []string{"one", "two", "three"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
					taken = append(taken, name)
				}
			}
			if got := strings.Join(taken, " "); got != test.taken {
				t.Errorf("took %q, want %q\n%s", got, test.taken, &notes)
			}
			if shows := strings.Contains(notes.String(), "+one"); shows != strings.HasPrefix(test.typed, "d") {
				t.Errorf("the difference is shown: %v", shows)
			}
		})
	}
}

func TestApplyOffersMerges(t *testing.T) {
	gitWithoutSettings(t)
	const marked = "<<<<<<< here\nhere\n=======\none\n>>>>>>> sandbox\n"
	for name, test := range map[string]struct {
		typed        string
		all, merge   bool
		before, here string
		said, is     string
	}{
		"the guest's side":          {typed: "y\n", before: "before\n", here: "here\n", said: "modified one", is: "one"},
		"both sides":                {typed: "d\nm\ny\n", before: "before\n", here: "here\n", said: "merged one", is: marked},
		"neither, after a look":     {typed: "m\nn\n", before: "before\n", here: "here\n", is: "here\n"},
		"nobody is asked":           {all: true, before: "before\n", here: "here\n", is: "here\n"},
		"both sides without asking": {all: true, merge: true, before: "before\n", here: "here\n", said: "merged one", is: marked},
		"no conflict":               {all: true, before: "one", here: "one", is: "one"},
		"different places":          {all: true, before: "one", here: "top\none", said: "merged one", is: "top\none"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := hostdir.Resolve(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "one"), []byte(test.here), 0o644); err != nil {
				t.Fatal(err)
			}
			host, err := hostdir.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			w := &machine.Workspace{Share: workspace.Share{
				Guest: workspaceOf{"one"}, Host: host, Record: &workspace.Record{Since: time.Now().Add(-time.Hour)},
				Base: func(context.Context, string) ([]byte, error) { return []byte(test.before), nil },
			}}
			changes, err := w.Changes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var out, notes bytes.Buffer
			a := applying{in: bufio.NewReader(strings.NewReader(test.typed)), out: &out, notes: &notes, all: test.all, merge: test.merge}
			if err := a.run(t.Context(), []changedShare{{w, changes, changes}}); (err != nil) != (name == "nobody is asked") {
				t.Error(err)
			}
			text, err := os.ReadFile(filepath.Join(dir, "one"))
			if err != nil || strings.TrimSuffix(string(text), "\n") != strings.TrimSuffix(test.is, "\n") || strings.TrimSpace(out.String()) != test.said {
				t.Errorf("said %q, and there is %q, %v; want %q and %q\n%s", &out, text, err, test.said, test.is, &notes)
			}
		})
	}
}
