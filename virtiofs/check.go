package virtiofs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// CheckOptions is what has to be known of the host to judge a share.
type CheckOptions struct {
	// Home is the home directory of the calling user.
	Home string
	// Private are further directories that a guest must never see or change, such as the program's own state.
	Private []string
	// AllowDangerous lets directories pass that a DangerError would name.
	AllowDangerous bool
}

// ChangedError reports that a directory is not any more what it was when it was shared. Share.Admit accepts what
// is there now.
type ChangedError struct {
	Source string
	What   string // what has changed, to follow "Source "
}

// Error says what was found in place of the directory.
func (e *ChangedError) Error() string {
	return fmt.Sprintf("%s is not shared: it %s", e.Source, e.What)
}

// MissingError reports that nothing is at the path of a share.
type MissingError struct {
	Source string
	File   bool // and a file is to be there
}

// Error says what to do about it.
func (e *MissingError) Error() string {
	if e.File {
		return fmt.Sprintf("the file %s to share does not exist: correct the path, or put it there", e.Source)
	}
	return fmt.Sprintf("the directory %s to share does not exist: correct the path, or make it with mkdir -p", e.Source)
}

// Admit makes sure that the share can and may be served: its source must be a directory or file that the calling user can
// read, and not be, contain or lie in one that is dangerous to share. It returns the share with a record of the
// directory, which Open compares with what is there.
func (s Share) Admit(o CheckOptions) (_ Share, err error) {
	if s.Clone != "" {
		if s, err = s.cloned(); err != nil {
			return s, err
		}
	}
	dir, err := s.open()
	if err != nil {
		return s, err
	}
	defer dir.Close()
	if s.Directory, err = dir.Identity(); err != nil {
		return s, err
	}
	err = judge(dir, o)
	s.AllowDangerous = false
	if _, ok := errors.AsType[*DangerError](err); ok && o.AllowDangerous {
		s.AllowDangerous, err = true, nil
	}
	return s, err
}

// Open opens the directory or file to serve it, and judges it again: it must be the one that Admit has recorded, and
// as harmless. What has changed is a *ChangedError. A share without a record is judged as if it were new, but for
// its AllowDangerous. The caller closes the directory.
func (s Share) Open(o CheckOptions) (*hostdir.Dir, error) {
	dir, err := s.open()
	if err != nil {
		return nil, err
	}
	if err := s.compare(dir, o); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

func (s Share) compare(dir *hostdir.Dir, o CheckOptions) error {
	now, err := dir.Identity()
	if err != nil {
		return err
	}
	if !s.Directory.IsZero() {
		if what := s.Directory.Difference(now); what != "" {
			return &ChangedError{s.Source, what}
		}
	}
	if s.AllowDangerous {
		return nil
	}
	return judge(dir, o)
}

// open opens the directory or file if the calling user can read it.
func (s Share) open() (*hostdir.Dir, error) {
	if !filepath.IsAbs(s.Source) || !utf8.ValidString(s.Source) {
		return nil, fmt.Errorf("%q cannot be shared: its path must be absolute and in UTF-8", s.Source)
	}
	dir, err := s.find()
	if err != nil {
		return nil, s.explain(err)
	}
	if err := dir.CheckReadable(); err != nil {
		mode := "u+rx"
		if s.File {
			mode = "u+r"
		}
		err = fmt.Errorf("the %s %s to share cannot be read by this user: share another, or get the permission to read it (chmod %s, if it is yours)", s.kind(), s.Source, mode)
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

// find opens what is at the path.
func (s Share) find() (*hostdir.Dir, error) {
	if s.File {
		return hostdir.OpenFile(filepath.Clean(s.Source))
	}
	return hostdir.Open(filepath.Clean(s.Source))
}

func (s Share) kind() string {
	if s.File {
		return "file"
	}
	return "directory"
}

// explain says why the directory cannot be opened.
func (s Share) explain(err error) error {
	if link, ok := errors.AsType[*hostdir.LinkError](err); ok {
		return &ChangedError{s.Source, s.throughLink(link)}
	}
	info, statErr := os.Stat(s.Source)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &MissingError{s.Source, s.File}
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the %s %s to share cannot be reached by this user: share another, or get the permission to enter the directories above it", s.kind(), s.Source)
	case statErr == nil && s.File:
		return fmt.Errorf("%s was a file when it was shared, and is none any more: put one there, or share it anew", s.Source)
	case statErr == nil && !info.IsDir():
		return fmt.Errorf("%s is not a directory, and only directories and regular files can be shared: share %s instead", s.Source, filepath.Dir(s.Source))
	}
	return fmt.Errorf("opening the %s to share: %w", s.kind(), err)
}

// Changed says what is at the path of an admitted share now in place of the directory, to follow the path, or is
// empty. A guest that has the share mounted goes on with the directory that it has.
func (s Share) Changed() string {
	if s.Directory.IsZero() {
		return ""
	}
	dir, err := s.find()
	if link, ok := errors.AsType[*hostdir.LinkError](err); ok {
		return s.throughLink(link)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "is not there any more"
	}
	if err != nil {
		return "" // whoever cannot look there has not seen a change
	}
	defer dir.Close()
	now, err := dir.Identity()
	if err != nil {
		return ""
	}
	return s.Directory.Difference(now)
}

func (s Share) throughLink(link *hostdir.LinkError) string {
	if link.Path == s.Source {
		return fmt.Sprintf("is a symbolic link now, to %q", link.Target)
	}
	return fmt.Sprintf("is reached by a symbolic link now, %s to %q", link.Path, link.Target)
}
