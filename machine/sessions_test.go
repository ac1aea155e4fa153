package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSessionsAreKeptUntilTheyAreRemoved(t *testing.T) {
	h := testHost(t)
	if kept, err := h.Sessions(); err != nil || len(kept) != 0 {
		t.Errorf("where nothing is kept: %v, %v", kept, err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	dir := filepath.Join(h.Dirs.Sessions(), "app-00000000")
	for _, err := range []error{
		os.Mkdir(outside, 0o700), os.MkdirAll(filepath.Join(dir, "claude", "a"), 0o700), os.MkdirAll(filepath.Join(dir, "codex"), 0o700),
		os.WriteFile(filepath.Join(dir, "claude", "a", "b"), make([]byte, 1<<20), 0o400), os.Chmod(filepath.Join(dir, "claude", "a"), 0),
		os.Symlink(outside, filepath.Join(dir, "link")), os.Symlink(outside, filepath.Join(dir, "claude", "link")), os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c := testConfig("work")
	c.AgentSessions = filepath.Join(dir, "codex")
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := h.Sessions()
	if err != nil || len(kept) != 2 || kept[0].ID != "app-00000000/claude" || kept[1].ID != "app-00000000/codex" || fmt.Sprint(kept[0].Sandboxes, kept[1].Sandboxes) != "[] [work]" {
		t.Errorf("kept are %+v, %v", kept, err)
	}
	for id, want := range map[string]string{
		"app-00000000/codex": "are those of the sandbox work", "app-00000000": "there are no sessions", "app-00000000/link": "there are no sessions", "app-00000000/..": "there are no sessions",
		"../work": "there are no sessions", "/": "there are no sessions", "": "there are no sessions", "app-00000000/none": "there are no sessions",
	} {
		if err := h.RemoveSessions(id); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", id, err, want)
		}
	}
	if err := h.RemoveSessions("app-00000000/claude"); err != nil {
		t.Error(err)
	}
	if err := s.Erase(); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveSessions("app-00000000/codex"); err != nil {
		t.Error(err)
	}
	if kept, err := h.Sessions(); err != nil || len(kept) != 0 {
		t.Errorf("what is left is %+v, %v", kept, err)
	}
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		t.Errorf("where a link of a guest leads: %v", err)
	}
}
