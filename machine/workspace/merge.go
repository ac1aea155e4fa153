package workspace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// mergePatience is for a program that merges three texts of at most MaxText bytes.
const mergePatience = 30 * time.Second

// Merge of a file that both sides have changed.
type Merge struct {
	Content   []byte
	Conflicts int // places at which both sides changed the same lines: the content has both there, between marks
}

// Merge merges what the guest and the host have made of a file, from what both began with. It returns nil where that is not
// known or a side is no short text, and where there is no conflict. Nothing is changed by it: see Take.
func (p *Pending) Merge(ctx context.Context) (*Merge, error) {
	both := p.Kind == Modified && p.Old.Mode.IsRegular() && p.New.Mode.IsRegular()
	if p.Conflict == "" || !both || p.ModeOnly || p.Refused != nil || p.share.Base == nil {
		return nil, nil
	}
	base, err := p.share.Base(ctx, p.Path)
	if err != nil {
		return nil, context.Cause(ctx) // it is of a file of which nobody knows what it was
	}
	ours, err := p.oldContent()
	if err != nil {
		return nil, err
	}
	theirs, err := p.newContent()
	if err != nil {
		return nil, err
	}
	for _, text := range [][]byte{base, ours, theirs} {
		if text == nil || len(text) > MaxText || isBinary(text) {
			return nil, nil
		}
	}
	return mergeTexts(ctx, ours, base, theirs)
}

// Merged tells whether it was taken.
func (p *Pending) Merged() bool { return p.merged != nil }

// mergeTexts has Git merge three texts. No directory that a guest has written to has to do with it.
func mergeTexts(ctx context.Context, ours, base, theirs []byte) (_ *Merge, err error) {
	dir, err := os.MkdirTemp("", "sandbox-merge-") // 0700
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for name, text := range map[string][]byte{"ours": ours, "base": base, "theirs": theirs} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, mergePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "merge-file", "-p", "-L", "here", "-L", "before", "-L", "sandbox", "ours", "base", "theirs")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_DIR=" + dir}
	merged, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, nil
	}
	conflicts := 0
	// Its status is the number of conflicts, up to 127, and above that an error.
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 && exit.ExitCode() <= 127 {
		conflicts, err = exit.ExitCode(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("merging: %w", err)
	}
	return &Merge{merged, conflicts}, nil
}

// Take makes a merge what is shown and applied in place of the guest's content. Nothing of the host's is lost by it, so that
// there is no conflict any more. The rules are asked about what comes of it.
func (p *Pending) Take(m *Merge) {
	p.merged, p.Conflict = m, ""
	p.share.judge(p)
}
