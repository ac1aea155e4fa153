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

// Pending is a change of which the content is on the host, so that what is shown is what is applied.
type Pending struct {
	Change
	share *Share
	fresh *os.File // the guest's content, without a name; nil where it is no regular file, or has the old one's
	sum   [32]byte
}

// Fetch gets the content of a change from the guest, and makes sure that nothing refuses it. The caller closes what is
// returned. Nothing has changed on the host by then.
func (s *Share) Fetch(ctx context.Context, c Change) (*Pending, error) {
	if err := s.refused(c); err != nil {
		return nil, err
	}
	p := &Pending{Change: c, share: s}
	if c.Kind != Removed && c.New.Mode.IsRegular() {
		if err := p.fetch(ctx); err != nil {
			return nil, errors.Join(err, p.Close())
		}
	}
	if err := s.judge(p); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// Close gives back what was fetched.
func (p *Pending) Close() error {
	if p.fresh == nil {
		return nil
	}
	return p.fresh.Close()
}

// refused says what never comes to the host.
func (s *Share) refused(c Change) error {
	if c.Kind == Removed {
		return nil
	}
	switch c.New.Mode.Type() {
	case 0, fs.ModeDir:
	case fs.ModeSymlink:
		if leaves(c.Path, c.New.Link) {
			return &RefusedError{Path: c.Path, Why: fmt.Sprintf("is a symbolic link that leads out of the share, to %q", c.New.Link)}
		}
	default:
		return &RefusedError{Path: c.Path, Why: "is a " + c.Type() + ", and only files, directories and links come to this machine"}
	}
	return nil
}

// leaves tells whether a symbolic link leads out of the share, as far as its text says.
func leaves(name, target string) bool {
	if path.IsAbs(target) {
		return true
	}
	depth := strings.Count(name, "/")
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 {
				return true
			}
		default:
			depth++
		}
	}
	return false
}

// judge asks the rules of the share.
func (s *Share) judge(p *Pending) error {
	if s.Judge == nil {
		return nil
	}
	access := rules.Access{Operation: rules.Make, Path: p.Path, Type: p.New.Mode.Type(), Link: p.New.Link}
	switch {
	case p.Kind == Removed:
		access.Operation, access.Type = rules.Remove, p.Old.Mode.Type()
	case p.ModeOnly:
		access.Operation = rules.Change
	case p.fresh != nil:
		access.Content = func() ([]byte, error) {
			if p.New.Size > rules.MaxContent {
				return nil, fmt.Errorf("%s has more than %d bytes", p.Path, rules.MaxContent)
			}
			return io.ReadAll(io.NewSectionReader(p.fresh, 0, rules.MaxContent+1))
		}
	}
	if v := s.Judge(access); v.Refused {
		return &RefusedError{Path: p.Path, Rule: v.Rule, Why: v.Reason}
	}
	return nil
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
		return &RefusedError{Path: p.Path, Why: fmt.Sprintf("has %d bytes, for which there is no room", p.New.Size)}
	}
	fd, err := unix.Openat(int(dir.File().Fd()), ".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &fs.PathError{Op: "making a file in", Path: dir.Path(), Err: err}
	}
	p.fresh = os.NewFile(uintptr(fd), p.Path)
	to := &contentWriter{file: p.fresh, left: p.New.Size, sum: sha256.New()}
	if err := p.share.Guest.Read(ctx, p.Path, to); err != nil {
		return fmt.Errorf("fetching %s: %w", p.Path, err)
	}
	if err := p.fresh.Truncate(to.at); err != nil {
		return err
	}
	p.New.Size, p.sum = to.at, [32]byte(to.sum.Sum(nil))
	return nil
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

// contentWriter writes a file, with holes where there are only zeroes, and no more than was announced.
type contentWriter struct {
	file *os.File
	at   int64
	left int64
	sum  hash.Hash
}

func (w *contentWriter) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, errors.New("the guest is writing to it: try again")
	}
	w.left -= int64(len(p))
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

// Commit makes the host's directory as the guest has it at this path. A conflict is an error unless overwrite is set.
func (p *Pending) Commit(ctx context.Context, overwrite bool) error {
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
		return &ConflictError{p.Path, "there is no directory for it on this machine: apply that first"}
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
		return fmt.Errorf("applying %s: %w", p.Path, err)
	}
	now, err := lstatAt(parent, base)
	if err != nil {
		return err
	}
	p.share.settle(p.Path, p.New, p.sum, now)
	return nil
}

// keepMoved lets the guest copy what it has only because the host has it under another name, which may be about to go.
func (s *Share) keepMoved(ctx context.Context) error {
	for _, dir := range s.moved {
		if err := s.Guest.Keep(ctx, dir); err != nil {
			return fmt.Errorf("the guest cannot keep %s, which it has renamed: %w", dir, err)
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
	fd := int(p.fresh.Fd())
	if err := p.own(fd); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, p.mode()); err != nil {
		return err
	}
	if err := p.fresh.Sync(); err != nil {
		return err
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
