package tree

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Rules say which links in a path that a person typed are followed.
type Rules struct {
	// Guest is for the guest's own side of a copy: all links are followed, and
	// links to directories in the destination are gone through. A stream's
	// set-id bits and special files are kept.
	Guest bool
	// Shared are the directories that a stranger may write to, with the
	// stranger's name. No link in them is followed. Nor is, anywhere, a link at
	// the end of the path: the person has to say what is meant.
	Shared map[ID]string
}

// Identify returns the identity of a directory, for Rules.Shared.
func Identify(dir string) (ID, error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return ID{}, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return idOf(&st), nil
}

// found is where a path leads. Its owner closes it.
type found struct {
	typed    string
	dir      int    // what it is in, pinned; -1 if it has no name
	base     string // its name there
	fd       int    // pinned; -1 if there is nothing
	st       unix.Stat_t
	contents bool     // the path ends in "/.": what is in a directory is meant
	slash    bool     // the path ends in a slash
	own      *os.File // an open file of this process is meant, and nothing of the above
}

func (f *found) close() {
	for _, fd := range []int{f.dir, f.fd} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if f.own != nil {
		f.own.Close()
	}
}

func (f *found) missing() bool { return f.own == nil && f.fd < 0 }
func (f *found) isDir() bool   { return f.fd >= 0 && isDir(&f.st) }

// isStream tells whether it is read and written from one end to the other, and
// never replaced: a device, a pipe or an open file of this process.
func (f *found) isStream() bool {
	if f.own != nil {
		return true
	}
	if f.fd < 0 {
		return false
	}
	switch f.st.Mode & unix.S_IFMT {
	case unix.S_IFIFO, unix.S_IFCHR, unix.S_IFBLK:
		return true
	}
	return false
}

// stream opens it, which for a pipe lasts until somebody has opened the other
// end. The caller closes the file.
func (f *found) stream(ctx context.Context, flags int) (*os.File, error) {
	if f.own != nil {
		fd, err := unix.FcntlInt(f.own.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewFile(uintptr(fd), f.typed), err
	}
	type result struct {
		fd  int
		err error
	}
	opened := make(chan result, 1)
	go func() {
		fd, err := open(f.fd, flags)
		opened <- result{fd, err}
	}()
	select {
	case r := <-opened:
		if r.err != nil {
			return nil, &os.PathError{Op: "open", Path: f.typed, Err: r.err}
		}
		return os.NewFile(uintptr(r.fd), f.typed), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ownFile returns the open file of this process that the path means, as
// /dev/stdin and the <(…) of a shell do, if it means one.
func ownFile(typed string) (*os.File, error) {
	clean := path.Clean(typed)
	number, ok := map[string]string{"/dev/stdin": "0", "/dev/stdout": "1", "/dev/stderr": "2"}[clean]
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if !ok {
			number, ok = strings.CutPrefix(clean, dir)
		}
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if !ok || err != nil {
		return nil, nil
	}
	fd, err := unix.FcntlInt(uintptr(n), unix.F_DUPFD_CLOEXEC, 0)
	var st unix.Stat_t
	if err == nil {
		err = unix.Fstat(fd, &st)
	}
	if err == nil && isDir(&st) {
		unix.Close(fd)
		err = unix.EISDIR
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: typed, Err: err}
	}
	return os.NewFile(uintptr(fd), typed), nil
}

// find resolves a path that a person typed. Nothing at its end is no error.
func (r Rules) find(typed string) (*found, error) {
	f := &found{typed: typed, dir: -1, fd: -1}
	if !r.Guest {
		var err error
		if f.own, err = ownFile(typed); err != nil || f.own != nil {
			return f, err
		}
	}
	if typed == "" {
		return nil, errors.New("a path is empty")
	}
	rest := typed
	for rest != "" && rest != "/" {
		if s, ok := strings.CutSuffix(rest, "/"); ok {
			rest, f.slash = s, true
		} else if s, ok := strings.CutSuffix(rest, "/."); ok || rest == "." {
			rest, f.contents = s, true
			if !ok {
				rest = ""
			}
		} else {
			break
		}
	}
	names := split(rest)
	w := &finder{rules: r, suffix: strings.TrimPrefix(typed, rest)}
	if err := w.start(path.IsAbs(typed)); err != nil {
		return nil, err
	}
	defer w.close()
	if err := w.walk(names, f); err != nil {
		f.close()
		return nil, err
	}
	if (f.contents || f.slash) && f.fd >= 0 && !isDir(&f.st) {
		f.close()
		return nil, fmt.Errorf("%s is not a directory", Show(rest))
	}
	return f, nil
}

// finder walks along a path.
type finder struct {
	rules  Rules
	cur    int      // the directory that was reached, pinned
	inside int      // how far below a shared directory, which counts as 1; 0 outside
	shared string   // whose that is
	walked []string // names, for messages
	abs    bool
	links  int
	suffix string // of the typed path, such as "/."
}

func (w *finder) close() { unix.Close(w.cur) }

// start begins at the root or in the current directory.
func (w *finder) start(abs bool) (err error) {
	w.abs = abs
	if abs {
		w.cur, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		return err
	}
	if w.cur, err = unix.Open(".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("the current directory: %w", err)
	}
	return w.lookUp()
}

// lookUp finds out whether the current directory is in a shared one.
func (w *finder) lookUp() error {
	if len(w.rules.Shared) == 0 {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(w.cur), unix.F_DUPFD_CLOEXEC, 0)
	var last ID
	for depth := 1; err == nil; depth++ {
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err != nil || idOf(&st) == last {
			break
		}
		last = idOf(&st)
		if name, ok := w.rules.Shared[last]; ok {
			w.inside, w.shared = depth, name
		}
		var up int
		up, err = unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(fd)
		fd = up
	}
	if fd >= 0 {
		unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("the current directory: %w", err)
	}
	return nil
}

// maxLinks is how many links the kernel follows in one path (path_resolution(7)).
const maxLinks = 40

func (w *finder) walk(names []string, f *found) error {
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if name == "." {
			continue
		}
		fd, st, err := pin(w.cur, name)
		w.walked = append(w.walked, name)
		last := len(names) == 0
		switch {
		case errors.Is(err, unix.ENOENT) && last:
		case err != nil:
			return &os.PathError{Op: "open", Path: w.path(), Err: err}
		case isLink(&st):
			more, err := w.follow(fd, last, names)
			if err != nil {
				return err
			}
			names = more
			continue
		case !last && !isDir(&st):
			unix.Close(fd)
			return &os.PathError{Op: "open", Path: w.path(), Err: unix.ENOTDIR}
		}
		if last && name != ".." {
			f.dir, f.base, f.fd, f.st = w.cur, name, fd, st
			w.cur = -1
			return nil
		}
		w.enter(name, fd, &st)
	}
	// The path ends where no name is left: at /, ., or what .. leads to.
	f.fd, w.cur = w.cur, -1
	return unix.Fstat(f.fd, &f.st)
}

func (w *finder) enter(name string, fd int, st *unix.Stat_t) {
	unix.Close(w.cur)
	w.cur = fd
	sharer, shared := w.rules.Shared[idOf(st)]
	switch {
	case name == "..":
		w.inside = max(w.inside-1, 0)
	case w.inside > 0:
		w.inside++
	case shared:
		w.inside, w.shared = 1, sharer
	}
}

// follow returns the names after those of a link, and goes back to the root if
// it leads there. It closes the link.
func (w *finder) follow(fd int, last bool, rest []string) ([]string, error) {
	target, err := readlink(fd)
	unix.Close(fd)
	if err != nil {
		return nil, &os.PathError{Op: "readlink", Path: w.path(), Err: err}
	}
	link := w.path()
	meant := target
	w.walked = w.walked[:len(w.walked)-1]
	if !path.IsAbs(target) {
		meant = path.Join(w.path(), target)
	}
	meant = path.Join(append([]string{meant}, rest...)...) + w.suffix
	switch w.links++; {
	case w.links > maxLinks:
		return nil, &os.PathError{Op: "open", Path: link, Err: unix.ELOOP}
	case w.rules.Guest:
	case last:
		return nil, fmt.Errorf("%s is a link to %s, and no link is followed at the end of a path: if you mean what it leads to, write %s", Show(link), Show(target), Show(meant))
	case w.inside > 0:
		return nil, fmt.Errorf("%s is a link to %s in a directory that the sandbox %s can write to, so it may be the sandbox's: if you mean what it leads to, write %s", Show(link), Show(target), w.shared, Show(meant))
	}
	if path.IsAbs(target) {
		unix.Close(w.cur)
		w.inside, w.walked = 0, nil
		if err := w.start(true); err != nil {
			w.cur = -1
			return nil, err
		}
	}
	return append(split(target), rest...), nil
}

// split returns the names in a path.
func split(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == '/' })
}

// path is as far as the walk has come.
func (w *finder) path() string {
	p := strings.Join(w.walked, "/")
	if w.abs {
		return "/" + p
	}
	return p
}
