package workspace

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// tempPrefix begins the names of files that are about to take their place.
const tempPrefix = ".sandbox-apply-"

// Pending is a change with its content, so that what is shown is what is applied.
type Pending struct {
	Change
	// Refused says why it does not come to the host, whatever the user wants; nil: nothing refuses it.
	Refused *RefusedError

	share *Share
	text  []byte   // the guest's content, if it is small
	fresh *os.File // the guest's content, without a name, if it is to be applied; nil where it is no regular file
	sum   [32]byte

	merged *Merge // what is applied in place of the guest's content; nil: that
}

// Look gets the content of a change if it is small enough to be shown, and asks whether anything refuses it.
func (s *Share) Look(ctx context.Context, c Change) (*Pending, error) {
	p := &Pending{Change: c, share: s}
	if p.hasContent() && c.New.Size <= MaxText {
		var text bytes.Buffer
		if err := s.Guest.Read(ctx, c.Path, &limitedWriter{to: &text, left: c.New.Size}); err != nil {
			return nil, fmt.Errorf("fetching %s: %w", Name(c.Path), err)
		}
		p.text = text.Bytes()
	}
	s.judge(p)
	return p, nil
}

// Fetch gets the content of a change to be applied, unless something refuses it. It is in the share's file system then,
// and has no name. The caller closes what is returned.
func (s *Share) Fetch(ctx context.Context, c Change) (*Pending, error) {
	p := &Pending{Change: c, share: s}
	if p.hasContent() && s.never(c) == nil {
		if err := p.fetch(ctx); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	s.judge(p)
	return p, nil
}

func (p *Pending) hasContent() bool {
	return p.Kind != Removed && !p.ModeOnly && p.New.Mode.IsRegular()
}

// Close gives back what was fetched.
func (p *Pending) Close() error {
	if p.fresh == nil {
		return nil
	}
	return p.fresh.Close()
}

// never says what comes to the host under no rules.
func (s *Share) never(c Change) *RefusedError {
	if c.Kind == Removed {
		return nil
	}
	switch c.New.Mode.Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if leaves(c.Path, c.New.Link) {
			return &RefusedError{Path: c.Path, Why: fmt.Sprintf("is a symbolic link that leads out of the share, or could, to %q", c.New.Link)}
		}
	default:
		return &RefusedError{Path: c.Path, Why: "is a " + c.Type() + ", and only files, directories and links come to this machine"}
	}
	return nil
}

// leaves tells whether a symbolic link could lead out of the share. What is above it are directories, but any name in its
// text can be a link to somewhere else in the share, so that nobody knows what is above that.
func leaves(name, target string) bool {
	if path.IsAbs(target) {
		return true
	}
	depth, down := strings.Count(name, "/"), false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 || down {
				return true
			}
		default:
			down = true
		}
	}
	return false
}

// judge asks whether anything refuses the change.
func (s *Share) judge(p *Pending) {
	if p.Refused = s.never(p.Change); p.Refused != nil || s.Judge == nil {
		return
	}
	// Set-id bits are dropped, and so of no account.
	access := rules.Access{Operation: rules.Make, Path: p.Path, Type: p.New.Mode.Type(), Link: p.New.Link}
	old := func() ([]byte, error) {
		f, _, err := open(s.Host, p.Path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return content(f, p.Old.Size)
	}
	if !p.Old.Mode.IsRegular() || p.Kind == Added {
		old = nil
	}
	switch {
	case p.Kind == Removed:
		access.Operation, access.Type, access.Empty, access.Content = rules.Remove, p.Old.Mode.Type(), p.Old.Mode.IsDir(), old
	case p.ModeOnly:
		access.Operation, access.Content = rules.Change, old
	default:
		access.Old = old
		if p.hasContent() {
			access.Content = func() ([]byte, error) { return content(p.newReader(), p.newSize()) }
		}
	}
	if v := s.Judge(access); v.Refused {
		p.Refused = &RefusedError{Path: p.Path, Rule: v.Rule, Why: v.Reason}
	}
}

// newReader reads what would be applied: the guest's content, as far as it was fetched, or what was merged.
func (p *Pending) newReader() io.Reader {
	if p.merged != nil {
		return bytes.NewReader(p.merged.Content)
	}
	if p.fresh == nil {
		return bytes.NewReader(p.text)
	}
	return io.NewSectionReader(p.fresh, 0, p.New.Size)
}

// newSize is how long that is.
func (p *Pending) newSize() int64 {
	if p.merged != nil {
		return int64(len(p.merged.Content))
	}
	return p.New.Size
}

// content reads what the rules may ask for.
func content(r io.Reader, size int64) ([]byte, error) {
	if size > rules.MaxContent {
		return nil, fmt.Errorf("it has more than %d bytes", rules.MaxContent)
	}
	return io.ReadAll(io.LimitReader(r, rules.MaxContent))
}

// fetch writes the guest's file to one without a name, in the nearest directory that is there.
func (p *Pending) fetch(ctx context.Context) error {
	dir, err := p.share.nearest(path.Dir(p.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	var free unix.Statfs_t
	if err := unix.Fstatfs(int(dir.File().Fd()), &free); err == nil && uint64(p.New.Size)/uint64(free.Bsize) > free.Bavail {
		return fmt.Errorf("%s has %d bytes, for which there is no room on this machine", Name(p.Path), p.New.Size)
	}
	if p.fresh, err = nameless(dir, p.Path); err != nil {
		return err
	}
	to := &contentWriter{file: p.fresh, sum: sha256.New()}
	if err := p.share.Guest.Read(ctx, p.Path, &limitedWriter{to: to, left: p.New.Size}); err != nil {
		return fmt.Errorf("fetching %s: %w", Name(p.Path), err)
	}
	if err := p.fresh.Truncate(to.at); err != nil {
		return err
	}
	p.New.Size, p.sum = to.at, [32]byte(to.sum.Sum(nil))
	return nil
}

// nameless makes a file without a name in a directory. The caller closes it.
func nameless(dir *hostdir.Dir, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.File().Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "making a file in", Path: dir.Path(), Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// nearest opens the directory of that name, or the first above it that is there.
func (s *Share) nearest(name string) (*hostdir.Dir, error) {
	for {
		dir, err := s.Host.Beneath(name)
		if !absent(err) || name == "." {
			return dir, err
		}
		name = path.Dir(name)
	}
}

// limitedWriter takes no more than was announced.
type limitedWriter struct {
	to   io.Writer
	left int64
}

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= int64(len(p)); w.left < 0 {
		return 0, errors.New("the guest is writing to it: try again")
	}
	return w.to.Write(p)
}

// contentWriter writes a file with holes where there are only zeroes.
type contentWriter struct {
	file *os.File
	at   int64
	sum  hash.Hash
}

func (w *contentWriter) Write(p []byte) (int, error) {
	w.sum.Write(p)
	for rest := p; len(rest) > 0; {
		piece := rest[:min(len(rest), holeSize)]
		if !bytes.Equal(piece, make([]byte, len(piece))) {
			if _, err := w.file.WriteAt(piece, w.at); err != nil {
				return 0, err
			}
		}
		w.at += int64(len(piece))
		rest = rest[len(piece):]
	}
	return len(p), nil
}

// holeSize is the least run of zeroes, in bytes, that is left out: a page and a block of most file systems.
const holeSize = 4096

// commit makes the host's directory as the guest has it at this path. A conflict is an error unless overwrite is set.
func (p *Pending) commit(ctx context.Context, overwrite bool) error {
	if p.Refused != nil {
		return p.Refused
	}
	if p.Conflict != "" && !overwrite {
		return &ConflictError{p.Path, p.Conflict}
	}
	if p.Kind == Removed {
		if err := p.share.keepMoved(ctx); err != nil {
			return err
		}
	}
	parent, err := p.share.Host.Beneath(path.Dir(p.Path))
	if absent(err) {
		return &ConflictError{p.Path, "there is no directory for it on this machine"}
	}
	if err != nil {
		return err
	}
	defer parent.Close()
	base := path.Base(p.Path)
	switch {
	case p.Kind == Removed:
		err = p.remove(parent, base)
	case p.New.Mode.IsDir():
		err = p.makeDir(parent, base)
	case p.ModeOnly:
		err = p.chmod(parent, base)
	default:
		err = p.put(parent, base)
	}
	if errors.Is(err, errMeanwhile) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
		return &ConflictError{p.Path, errMeanwhile.Error()}
	}
	if err != nil {
		return fmt.Errorf("applying %s: %w", Name(p.Path), err)
	}
	now, err := lstatAt(parent, base)
	if err != nil {
		return err
	}
	if p.merged != nil { // the guest does not have what the host has now, and may not replace it unseen
		now = nil
	}
	p.share.settle(p.Path, p.New, p.sum, now)
	return nil
}

// Applier applies changes of one comparison.
type Applier struct {
	share *Share
	dirs  map[string]Change // directories to be made
}

// Apply begins to apply some of the changes, which are all that there are.
func (s *Share) Apply(changes []Change) *Applier {
	a := &Applier{s, make(map[string]Change)}
	for _, c := range changes {
		if c.Kind == Added && c.New.Mode.IsDir() {
			a.dirs[c.Path] = c
		}
	}
	return a
}

// Commit makes the host's directory as the guest has it at one path, with the directories that lead there. A conflict is
// an error unless overwrite is set: a *ConflictError, as is what has changed since the comparison. What something refuses
// is a *RefusedError.
func (a *Applier) Commit(ctx context.Context, p *Pending, overwrite bool) error {
	if p.Kind != Removed {
		for i, r := range p.Path {
			dir, missing := a.dirs[p.Path[:i]]
			if r != '/' || !missing {
				continue
			}
			above := &Pending{Change: dir, share: a.share}
			a.share.judge(above)
			if err := above.commit(ctx, overwrite); err != nil {
				return err
			}
			delete(a.dirs, dir.Path)
		}
	}
	if p.Kind == Added && p.New.Mode.IsDir() {
		if _, missing := a.dirs[p.Path]; !missing {
			return nil // made on the way to something in it
		}
		delete(a.dirs, p.Path)
	}
	return p.commit(ctx, overwrite)
}

// keepMoved lets the guest copy what it has only because the host has it under another name, which may be about to go.
func (s *Share) keepMoved(ctx context.Context) error {
	for _, dir := range s.moved {
		if err := s.Guest.Keep(ctx, dir); err != nil {
			return fmt.Errorf("the guest cannot keep %s, which it has renamed: %w", Name(dir), err)
		}
	}
	s.moved = nil
	return nil
}

func tempName() string { return tempPrefix + rand.Text() }

// remove takes away a name, if it is still what was compared.
func (p *Pending) remove(parent *hostdir.Dir, base string) error {
	fd := int(parent.File().Fd())
	if p.Old.Mode.IsDir() { // one in which there is something new stays
		return unix.Unlinkat(fd, base, unix.AT_REMOVEDIR)
	}
	aside := tempName()
	if err := unix.Renameat2(fd, base, fd, aside, unix.RENAME_NOREPLACE); err != nil {
		return err
	}
	return p.drop(parent, aside, func() error { return unix.Renameat2(fd, aside, fd, base, unix.RENAME_NOREPLACE) })
}

// drop removes what was set aside if it is what was compared, and else puts it back.
func (p *Pending) drop(parent *hostdir.Dir, aside string, putBack func() error) error {
	was, err := lstatAt(parent, aside)
	if err == nil && (was == nil || p.host == nil || !was.same(p.host)) {
		err = errMeanwhile
	}
	if err == nil {
		return unix.Unlinkat(int(parent.File().Fd()), aside, 0)
	}
	if back := putBack(); back != nil {
		return fmt.Errorf("%w; what was there is %s now (%v)", err, path.Join(parent.Path(), aside), back)
	}
	return err
}

func (p *Pending) makeDir(parent *hostdir.Dir, base string) error {
	fd := int(parent.File().Fd())
	if p.Kind == Added {
		if err := unix.Mkdirat(fd, base, 0o700); err != nil {
			return err
		}
	}
	dir, err := unix.Openat(fd, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	if p.Kind == Added {
		if err := p.own(dir); err != nil {
			return err
		}
	}
	return unix.Fchmod(dir, p.mode())
}

// mode is the permissions that the host's gets: others may write where they could before.
func (p *Pending) mode() uint32 {
	mode := p.New.Mode.Perm()
	if p.Old.Mode.Perm()&0o002 == 0 {
		mode &^= 0o002
	}
	return uint32(mode)
}

// own gives what root makes the owner of what it replaces, or that of the share: root's files in it would be in the
// owner's way.
func (p *Pending) own(fd int) error {
	if os.Geteuid() != 0 {
		return nil
	}
	if p.host != nil {
		return unix.Fchown(fd, int(p.host.uid), int(p.host.gid))
	}
	uid, gid, _, err := virtiofs.Owner(p.share.Host)
	if err != nil {
		return err
	}
	return unix.Fchown(fd, uid, gid)
}

func (p *Pending) chmod(parent *hostdir.Dir, base string) error {
	f, now, err := openAt(parent, base)
	if err != nil {
		return err
	}
	defer f.Close()
	if !now.same(p.host) {
		return errMeanwhile
	}
	return unix.Fchmod(int(f.Fd()), p.mode())
}

// put puts the new file or link in the place of the old one.
func (p *Pending) put(parent *hostdir.Dir, base string) error {
	fd, temp := int(parent.File().Fd()), tempName()
	if err := p.name(parent, temp); err != nil {
		return err
	}
	if p.Kind == Added {
		err := unix.Renameat2(fd, temp, fd, base, unix.RENAME_NOREPLACE)
		if err != nil {
			err = errors.Join(err, unix.Unlinkat(fd, temp, 0))
		}
		return err
	}
	if err := unix.Renameat2(fd, temp, fd, base, unix.RENAME_EXCHANGE); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errMeanwhile
		}
		return errors.Join(err, unix.Unlinkat(fd, temp, 0))
	}
	return p.drop(parent, temp, func() error {
		err := unix.Renameat2(fd, temp, fd, base, unix.RENAME_EXCHANGE)
		if err == nil {
			err = unix.Unlinkat(fd, temp, 0)
		}
		return err
	})
}

// name gives the new file, or link, a name beside its place, with all that belongs to it.
func (p *Pending) name(parent *hostdir.Dir, temp string) error {
	dir := int(parent.File().Fd())
	if p.fresh == nil {
		if err := unix.Symlinkat(p.New.Link, dir, temp); err != nil {
			return err
		}
		if os.Geteuid() != 0 {
			return nil
		}
		link, err := unix.Openat(dir, temp, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(link)
		uid, gid, _, err := virtiofs.Owner(p.share.Host)
		if err != nil {
			return err
		}
		return unix.Fchownat(link, "", uid, gid, unix.AT_EMPTY_PATH|unix.AT_SYMLINK_NOFOLLOW)
	}
	fresh := p.fresh
	if p.merged != nil {
		file, err := nameless(parent, p.Path)
		if err != nil {
			return err
		}
		defer file.Close()
		if _, err := file.Write(p.merged.Content); err != nil {
			return err
		}
		fresh = file
	}
	fd := int(fresh.Fd())
	if err := p.own(fd); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, p.mode()); err != nil {
		return err
	}
	if p.Kind == Modified { // a new one is written back by Finish, and takes nothing from anybody until then
		if err := fresh.Sync(); err != nil {
			return err
		}
	}
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", fd), dir, temp, unix.AT_SYMLINK_FOLLOW)
}

// Finish is called when all is applied: the guest then looks at the host's files anew, and the host's are on its disk.
func (s *Share) Finish(ctx context.Context) error {
	dir, err := unix.Openat(int(s.Host.File().Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		err = unix.Syncfs(dir)
		unix.Close(dir)
	}
	if err != nil {
		err = fmt.Errorf("writing %s back: %w", s.Host.Path(), err)
	}
	return errors.Join(err, s.Guest.Refresh(ctx))
}
