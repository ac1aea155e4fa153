package machine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/workspace"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// What was applied, discarded and mounted after a snapshot, the guest that it has does not know: it would be taken for
// something that the guest has seen, and be overwritten by older work.
func TestOfARestoredGuestIsKnownWhatWasWhenItWasSaved(t *testing.T) {
	_, f := forkable(t)
	one := virtiofs.Share{Source: t.TempDir(), Target: "/home/agent/x", CopyOnWrite: true, ReadOnly: true}
	two := virtiofs.Share{Source: t.TempDir(), Target: one.Target, CopyOnWrite: true, ReadOnly: true}
	if err := f.s.BeginWorkspace(t.Context(), one); err != nil {
		t.Fatal(err)
	}
	base := filepath.Join(f.s.mergeBase(one), "base")
	if err := os.MkdirAll(filepath.Dir(base), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, base, "then")
	f.snap = saveTest(t, f.s, "two", time.Now())
	linkClientKey(t, f.s, "two")

	records := recordsOf(t, f.s)
	since := records[one.Target].Since
	records[one.Target].Settled = map[string]workspace.Settled{"later": {}}
	if err := f.s.saveWorkspaceRecords(records); err != nil {
		t.Fatal(err)
	}
	writeFile(t, base, "later")
	if err := f.s.SetWorkspaceAside(one); err != nil {
		t.Fatal(err)
	}
	if err := f.s.BeginWorkspace(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	fork, err := f.Fork(t.Context(), ForkOptions{Name: "fork"})
	if err != nil {
		t.Fatal(err)
	}
	for s, tag := range map[*Sandbox]string{f.s: "two", fork: OriginTag} {
		if err := s.RestoreWorkspaces(t.Context(), s.Files().Snapshot(tag)); err != nil {
			t.Fatal(err)
		}
		records := recordsOf(t, s)
		if got := records[one.Target]; len(records) != 1 || got == nil || !got.Since.Equal(since) || len(got.Settled) != 0 {
			t.Errorf("of %s is known %+v, want what was known of the first share", s.Name, records)
		}
		if text, err := os.ReadFile(filepath.Join(s.mergeBase(one), "base")); string(text) != "then" {
			t.Errorf("%s began with %q, %v", s.Name, text, err)
		}
	}
	// One that is damaged changes nothing.
	writeFile(t, filepath.Join(f.s.Files().Snapshot("two"), layout.WorkspaceFile), "garbage")
	if err := f.s.RestoreWorkspaces(t.Context(), f.s.Files().Snapshot("two")); err == nil {
		t.Error("what is known was restored from garbage")
	}
	if text, err := os.ReadFile(base); string(text) != "then" || recordsOf(t, f.s)[one.Target] == nil {
		t.Errorf("after that, it began with %q, %v", text, err)
	}
	// Of an older snapshot nothing is known but what is now.
	for _, name := range []string{layout.WorkspaceFile, layout.MergeBases} {
		if err := os.RemoveAll(filepath.Join(f.s.Files().Snapshot("two"), name)); err != nil {
			t.Fatal(err)
		}
	}
	if fork, err = f.Fork(t.Context(), ForkOptions{Name: "later"}); err != nil {
		t.Fatal(err)
	}
	for s, tag := range map[*Sandbox]string{f.s: "two", fork: OriginTag} {
		if err := s.RestoreWorkspaces(t.Context(), s.Files().Snapshot(tag)); err != nil {
			t.Fatal(err)
		}
		if got := recordsOf(t, s)[one.Target]; got == nil || !got.Since.Equal(since) {
			t.Errorf("of %s is known %+v after an older snapshot, want what is now", s.Name, got)
		}
	}
}

func recordsOf(t *testing.T, s *Sandbox) map[string]*workspace.Record {
	t.Helper()
	records, err := s.workspaceRecords()
	if err != nil {
		t.Fatal(err)
	}
	return records
}
