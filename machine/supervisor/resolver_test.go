package supervisor

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/renameio/v2"
)

// contents reads the copy as QEMU does, which opens it anew.
func (r *resolver) contents(t *testing.T) string {
	t.Helper()
	buf := make([]byte, maxResolverFile)
	n, _ := r.file.ReadAt(buf, 0) // io.EOF, as it is shorter
	return string(buf[:n])
}

// The server that answers comes first in what QEMU reads, at once for the file as it
// is, and again whenever the machine has another.
func TestQEMUReadsAServerThatAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	const first, second = "nameserver 192.0.2.1\nnameserver 192.0.2.2\n", "nameserver 192.0.2.3\n"
	if err := os.WriteFile(path, []byte(first), 0o644); err != nil {
		t.Fatal(err)
	}
	asked, answers := make(chan string), make(chan string)
	r, err := newResolver(path, func(ctx context.Context, text string) string {
		asked <- text
		select {
		case server := <-answers:
			return server
		case <-ctx.Done():
			return ""
		}
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if got := <-asked; got != first || r.contents(t) != first {
		t.Errorf("asked about %q with the copy %q, want %q", got, r.contents(t), first)
	}
	answers <- "192.0.2.2"
	for !strings.HasPrefix(r.contents(t), "nameserver 192.0.2.2\n"+first) {
		if t.Context().Err() != nil {
			t.Fatalf("the copy is %q", r.contents(t))
		}
	}
	if err := renameio.WriteFile(path, []byte(second), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got != second || r.contents(t) != second {
		t.Errorf("asked about %q with the copy %q, want %q", got, r.contents(t), second)
	}
}
