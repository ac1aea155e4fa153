package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
)

// MaxText bounds, in bytes, a file of which lines are compared.
const MaxText = 1 << 20

// Text is how a change looks to a person.
type Text struct {
	Diff           string // a unified difference, or a line that says what there is instead
	Added, Removed int    // lines; both 0 where none are compared
	Binary         bool
}

// Text compares the lines of the two sides.
func (p *Pending) Text(ctx context.Context) (Text, error) {
	old, err := p.oldContent()
	if err != nil {
		return Text{}, err
	}
	fresh, err := p.newContent()
	if err != nil {
		return Text{}, err
	}
	var text Text
	var b strings.Builder
	if p.Kind == Modified && (p.Old.Mode.Perm() != p.New.Mode.Perm() || p.Old.Mode.Type() != p.New.Mode.Type()) {
		fmt.Fprintf(&b, "mode of %s: %v to %v\n", p.Path, p.Old.Mode, p.New.Mode)
	}
	switch {
	case p.ModeOnly:
	case p.Old.Mode.IsDir() || p.New.Mode.IsDir():
		fmt.Fprintf(&b, "directory %s: %s\n", p.Path, p.Kind)
	case old == nil || fresh == nil || isBinary(old) || isBinary(fresh):
		text.Binary = true
		fmt.Fprintf(&b, "%s %s: %s, %d to %d bytes, not shown as text\n", p.Type(), p.Path, p.Kind, p.Old.Size, p.New.Size)
	default:
		oldName, newName := "a/"+p.Path, "b/"+p.Path
		switch p.Kind {
		case Added:
			oldName = "/dev/null"
		case Removed:
			newName = "/dev/null"
		}
		lines := diff.Diff(oldName, old, newName, fresh)
		// Its first line is the command diff, which a name with a newline would break in two.
		if _, rest, ok := bytes.Cut(lines, []byte("\n--- ")); ok {
			lines = append([]byte("--- "), rest...)
		}
		text.Added, text.Removed = count(lines)
		if len(lines) == 0 {
			fmt.Fprintf(&b, "%s %s: %s\n", p.Type(), p.Path, p.Kind)
		}
		b.Write(lines)
	}
	text.Diff = b.String()
	return text, context.Cause(ctx)
}

// count counts the lines that a unified difference adds and removes, behind its two lines of names.
func count(lines []byte) (added, removed int) {
	for i, line := range bytes.Split(lines, []byte("\n")) {
		switch {
		case i < 2 || len(line) == 0:
		case line[0] == '+':
			added++
		case line[0] == '-':
			removed++
		}
	}
	return added, removed
}

// isBinary is git's rule: a NUL among the first bytes.
func isBinary(content []byte) bool {
	return bytes.IndexByte(content[:min(len(content), 8000)], 0) >= 0
}

// oldContent is what the host has, or nil if it is too large. A link is the text that git makes of it.
func (p *Pending) oldContent() ([]byte, error) {
	side := p.Old
	switch {
	case p.Kind == Added || side.Mode.IsDir():
		return []byte{}, nil
	case side.Mode.Type() == fs.ModeSymlink:
		return []byte(side.Link), nil
	case !side.Mode.IsRegular() || side.Size > MaxText:
		return nil, nil
	}
	f, now, err := open(p.share.Host, p.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !now.same(p.host) {
		return nil, &ConflictError{p.Path, errMeanwhile.Error()}
	}
	return io.ReadAll(io.LimitReader(f, MaxText))
}

func (p *Pending) newContent() ([]byte, error) {
	side := p.New
	switch {
	case p.Kind == Removed || side.Mode.IsDir():
		return []byte{}, nil
	case side.Mode.Type() == fs.ModeSymlink:
		return []byte(side.Link), nil
	case p.fresh == nil || side.Size > MaxText:
		return nil, nil
	}
	return io.ReadAll(io.NewSectionReader(p.fresh, 0, MaxText))
}

// Write puts the two sides of the change below left and right, for a program that compares directories. A link is
// written as a file with its target, for such programs follow links.
func (p *Pending) Write(left, right *os.Root) error {
	if p.Kind != Added {
		if err := p.writeSide(left, p.Old, func() (io.ReadCloser, error) {
			f, _, err := open(p.share.Host, p.Path)
			return f, err
		}); err != nil {
			return err
		}
	}
	if p.Kind == Removed {
		return nil
	}
	return p.writeSide(right, p.New, func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(p.fresh, 0, p.New.Size)), nil
	})
}

func (p *Pending) writeSide(root *os.Root, side Side, open func() (io.ReadCloser, error)) (err error) {
	if side.Mode.IsDir() {
		return root.MkdirAll(p.Path, 0o700)
	}
	if i := strings.LastIndexByte(p.Path, '/'); i >= 0 {
		if err := root.MkdirAll(p.Path[:i], 0o700); err != nil {
			return err
		}
	}
	in := io.NopCloser(strings.NewReader("symbolic link to " + side.Link + "\n"))
	if side.Mode.IsRegular() {
		if in, err = open(); err != nil {
			return err
		}
	}
	defer in.Close()
	out, err := root.OpenFile(p.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
