package smoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/machine/layout"
)

// journalFile is the guest's journal among the artifacts.
const journalFile = "journal.log"

// openLogs opens the sandbox's logs, because a sandbox that ends in good order
// takes them with it, and the last lines are those of the power-down.
func (b *booting) openLogs() {
	if b.sandbox == nil || b.options.Artifacts == "" {
		return
	}
	for _, name := range []string{layout.ConsoleLog, layout.SupervisorLog, layout.QEMULog, layout.VirtiofsdLog, layout.NetworkLog, layout.AuditLog} {
		f, err := os.Open(b.sandbox.Files().Log(name))
		if err == nil {
			b.logs = append(b.logs, f)
		} else if !errors.Is(err, os.ErrNotExist) { // it did not come that far
			b.options.Note(fmt.Sprintf("%s: a log cannot be kept: %v", b.boot, err))
		}
	}
}

// pointToArtifacts makes an error that names the sandbox's console, which is
// removed with it, name what is kept of it.
func (b *booting) pointToArtifacts(err error) error {
	kept := "--artifacts DIR keeps it"
	if b.options.Artifacts != "" {
		kept = filepath.Join(b.artifacts(), layout.ConsoleLog)
	}
	return errors.New(strings.ReplaceAll(err.Error(), b.sandbox.Files().Log(layout.ConsoleLog), kept))
}

// artifacts is the directory of what is kept of the boot.
func (b *booting) artifacts() string {
	return filepath.Join(b.options.Artifacts, fmt.Sprintf("%s-%d", b.boot.Image, b.boot.Number))
}

// keepLogs closes the logs, and copies those of a boot that did not pass.
func (b *booting) keepLogs() {
	for _, f := range b.logs {
		if b.boot.Outcome != Passed {
			b.keep(filepath.Base(f.Name()), func(w io.Writer) error {
				_, err := io.Copy(w, f)
				return err
			})
		}
		f.Close()
	}
}

// keepJournal asks the guest for its journal.
func (b *booting) keepJournal(ctx context.Context, g *guest) {
	if b.options.Artifacts == "" || !g.systemd {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	b.keep(journalFile, func(w io.Writer) error {
		cmd := g.client.Command(ctx, "journalctl", "--boot", "--no-pager", "--output=short-monotonic")
		cmd.User, cmd.Stdout = "root", &beginning{w, maxJournal}
		return cmd.Run()
	})
}

// maxJournal bounds what is kept of a guest's journal, in bytes.
const maxJournal = 64 << 20

// beginning passes on up to left bytes, and then fails.
type beginning struct {
	w    io.Writer
	left int
}

func (b *beginning) Write(p []byte) (int, error) {
	n, err := b.w.Write(p[:min(len(p), b.left)])
	b.left -= n
	if err == nil && n < len(p) {
		err = fmt.Errorf("it has more than %d MiB, and only those are kept", maxJournal>>20)
	}
	return n, err
}

// keep writes one of the boot's artifacts. That it cannot is no reason to end
// the test.
func (b *booting) keep(name string, write func(io.Writer) error) {
	dir := b.artifacts()
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		b.boot.Artifacts = dir
		err = writeFile(filepath.Join(dir, name), write)
	}
	if err != nil {
		b.options.Note(fmt.Sprintf("%s: %s cannot be kept: %v", b.boot, name, err))
	}
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}
