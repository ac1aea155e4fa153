package machine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/layout"
)

func TestAuditLogLeavesOutWhatWasCutOff(t *testing.T) {
	s := create(t, testHost(t), "work")
	path := s.Files().Log(layout.AuditLog)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	lines := `{"time":"2026-01-02T03:04:05Z","verb":"create","path":"a","share":"/src"}` + "\n" + `{"time":"2026-01-02T03:04:05Z","verb":"rem`
	if err := os.WriteFile(path, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	if err := s.AuditLog(t.Context(), false, func(e AuditEntry) error { got = append(got, e.Share+" "+e.String()); return nil }); err != nil {
		t.Fatal(err)
	}
	if want := []string{`/src create "a"`}; !slices.Equal(got, want) {
		t.Errorf("it reads %q, want %q", got, want)
	}
}
