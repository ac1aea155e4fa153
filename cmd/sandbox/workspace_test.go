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
