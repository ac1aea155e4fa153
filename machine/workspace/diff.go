package workspace

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
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
	name := Name(p.Path)
	if p.Kind == Modified && (p.Old.Mode.Perm() != p.New.Mode.Perm() || p.Old.Mode.Type() != p.New.Mode.Type()) {
		fmt.Fprintf(&b, "mode of %s: %v to %v\n", name, p.Old.Mode, p.New.Mode)
	}
	switch {
	case p.ModeOnly:
	case p.Old.Mode.IsDir() || p.New.Mode.IsDir():
		fmt.Fprintf(&b, "directory %s: %s\n", name, p.Kind)
	case old == nil || fresh == nil || isObject(p.Path) || isBinary(old) || isBinary(fresh):
		text.Binary = true
		fmt.Fprintf(&b, "%s %s: %s, %d to %d bytes, not shown as text\n", p.Type(), name, p.Kind, p.Old.Size, p.New.Size)
	default:
		oldName, newName := Name("a/"+p.Path), Name("b/"+p.Path)
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
			fmt.Fprintf(&b, "%s %s: %s\n", p.Type(), name, p.Kind)
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

// isObject tells whether a file is one of Git's objects or packs: compressed, and not text even where it happens to have no
// NUL among the first bytes.
func isObject(name string) bool {
	_, within, ok := strings.Cut("/"+name, ".git/")
	return ok && strings.Contains("/"+within, "/objects/")
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
	if p.merged != nil {
		return p.merged.Content, nil
	}
	switch {
	case p.Kind == Removed || side.Mode.IsDir():
		return []byte{}, nil
	case side.Mode.Type() == fs.ModeSymlink:
		return []byte(side.Link), nil
	case !p.hasContent() || side.Size > MaxText:
		return nil, nil
	}
	return io.ReadAll(p.newReader())
}

// WriteSides puts the two sides of a change below left and right, for a program that compares directories. A link is
// written as a file with its target, for such programs follow links.
func (s *Share) WriteSides(ctx context.Context, c Change, left, right *os.Root) error {
	if c.Kind != Added {
		err := writeSide(left, c.Path, c.Old, func(to io.Writer) error {
			f, _, err := open(s.Host, c.Path)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = io.Copy(to, f)
			return err
		})
		if err != nil {
			return err
		}
	}
	if c.Kind == Removed {
		return nil
	}
	return writeSide(right, c.Path, c.New, func(to io.Writer) error {
		return s.Guest.Read(ctx, c.Path, &limitedWriter{to: to, left: c.New.Size})
	})
}

func writeSide(root *os.Root, name string, side Side, content func(io.Writer) error) error {
	if side.Mode.IsDir() {
		return root.MkdirAll(name, 0o700)
	}
	if err := root.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	switch side.Mode.Type() {
	case 0:
		err = content(out)
	case fs.ModeSymlink:
		_, err = fmt.Fprintf(out, "symbolic link to %s\n", side.Link)
	}
	return errors.Join(err, out.Close())
}
