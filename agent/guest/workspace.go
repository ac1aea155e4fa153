//go:build linux

package guest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/sys/unix"
)

const (
	// workspacesDir is beside what the root has written, on the sandbox's disk if it has one.
	workspacesDir = "workspaces"
)

// overlayOptions are those beside the directories. A rename of the host's directory is a rename, as git mv needs it,
// and the number of a file stays when it is first written. Without an index, one of several hard links of the host
// becomes a file of its own when it is written: the index finds files by handles, and those of virtiofs are other
// files' after the next boot.
var overlayOptions = [][2]string{{"redirect_dir", "on"}, {"xino", "on"}, {"index", "off"}, {"metacopy", "off"}}

// Extended attributes by which overlayfs notes what it has done
// (the kernel's Documentation/filesystems/overlayfs.rst).
const (
	overlayOpaque   = "trusted.overlay.opaque"
	overlayRedirect = "trusted.overlay.redirect"
	overlayOrigin   = "trusted.overlay.origin"
)

// workspaces are the copy-on-write shares that are mounted, by their tags.
type workspaces struct {
	top *os.Root // see keep

	mu  sync.Mutex
	all map[string]*workspace
}

// workspace is one of them. What it holds open is reached from any root, and whatever is mounted over it.
type workspace struct {
	upper  *os.Root // what the guest has written
	lower  *os.Root // what the host has
	merged *os.Root // what the guest sees
}

var _ server.Workspace = (*workspace)(nil)

// Workspace implements [server.Controller].
func (s *service) Workspace(tag string) (server.Workspace, error) {
	s.workspaces.mu.Lock()
	defer s.workspaces.mu.Unlock()
	if w := s.workspaces.all[tag]; w != nil {
		return w, nil
	}
	return nil, fmt.Errorf("the guest has no copy-on-write share with the tag %q", tag)
}

// mount mounts an overlay on the directory that is open as point, of which the lower layer is what mountLower mounts on a
// directory.
func (ws *workspaces) mount(share agent.Mount, point *os.File, mountLower func(at string) error) (err error) {
	w := new(workspace)
	defer func() {
		if err != nil {
			w.close()
		}
	}()
	if err := os.MkdirAll(shareMount, 0o700); err != nil {
		return unwrapPath(err)
	}
	if err := mountLower(shareMount); err != nil {
		return err
	}
	// The overlay has a mount of its own of it.
	defer func() {
		err = errors.Join(err, unix.Unmount(shareMount, unix.MNT_DETACH), os.Remove(shareMount))
	}()
	if w.lower, err = os.OpenRoot(shareMount); err != nil {
		return err
	}
	dir, err := ws.open(share.Target, share.Origin)
	if err != nil {
		return err
	}
	defer dir.Close()
	if w.upper, err = prepareUpper(dir, w.lower); err != nil {
		return err
	}
	// By descriptors: there is no path to the disk from the guest's own root, and none would need quoting.
	lower, err := w.lower.Open(".")
	if err != nil {
		return err
	}
	defer lower.Close()
	layers, err := dir.Open(".")
	if err != nil {
		return err
	}
	defer layers.Close()
	w.merged, err = mountOverlay(point, descriptorPath(lower), descriptorPath(layers)+"/data", descriptorPath(layers)+"/work")
	if err != nil {
		return fmt.Errorf("an overlay is not possible: %v", err) // and not whatever the same number means of a share
	}
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.all == nil {
		ws.all = make(map[string]*workspace)
	}
	ws.all[share.Tag] = w
	return nil
}

// mountOverlay mounts an overlay of these directories on the one that is open as point. It returns a mount of its own of
// it, which leads there whatever becomes of the other.
func mountOverlay(point *os.File, lower, upper, work string) (*os.Root, error) {
	settings, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(settings)
	for _, o := range slices.Concat([][2]string{{"source", "overlay"}, {"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}}, overlayOptions) {
		if err := unix.FsconfigSetString(settings, o[0], o[1]); err != nil {
			return nil, fmt.Errorf("its option %s=%s: %w", o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(settings); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(settings, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", int(point.Fd()), "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return nil, err
	}
	clone, err := unix.OpenTree(fd, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return nil, err
	}
	own := os.NewFile(uintptr(clone), "overlay")
	defer own.Close()
	return os.OpenRoot(descriptorPath(own))
}

// any tells whether there are any.
func (ws *workspaces) any() bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.all) > 0
}

// askLower asks the share itself, which the host serves, about its file system.
func (ws *workspaces) askLower(tag string, st *unix.Statfs_t) error {
	ws.mu.Lock()
	w := ws.all[tag]
	ws.mu.Unlock()
	if w == nil {
		return fs.ErrNotExist
	}
	dir, err := w.lower.Open(".")
	if err != nil {
		return err
	}
	defer dir.Close()
	return unix.Fstatfs(int(dir.Fd()), st)
}

func (w *workspace) close() {
	for _, root := range []*os.Root{w.upper, w.lower, w.merged} {
		if root != nil {
			root.Close()
		}
	}
}

// keep opens the directory, on the sandbox's disk or in memory, below which changes are kept. From the guest's own root
// there will be no path to it.
func (ws *workspaces) keep(dir string) (err error) {
	ws.top, err = os.OpenRoot(dir)
	return err
}

// originFile is beside the layers of a workspace: see [agent.Mount.Origin].
const originFile = "origin"

// open opens the directory of a workspace, which it makes if need be: that of the target, or, if it is another directory's,
// one of its own.
func (ws *workspaces) open(target, origin string) (*os.Root, error) {
	dir, err := ws.openNamed(target)
	if err != nil || origin == "" {
		return dir, err
	}
	was, err := dir.ReadFile(originFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err = dir.WriteFile(originFile, []byte(origin), 0o600); err == nil {
			return dir, nil
		}
	case err == nil && string(was) == origin:
		return dir, nil
	}
	dir.Close()
	if err != nil {
		return nil, err
	}
	return ws.openNamed(target + "\x00" + origin)
}

func (ws *workspaces) openNamed(name string) (*os.Root, error) {
	sum := sha256.Sum256([]byte(name)) // which may be longer than a name of a file, and has slashes
	dir := workspacesDir + "/" + hex.EncodeToString(sum[:16])
	if err := ws.top.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return ws.top.OpenRoot(dir)
}

// device is by what the kernel knows the overlay of the share with that tag, if it is one.
func (ws *workspaces) device(tag string) (device string, ok bool) {
	ws.mu.Lock()
	w := ws.all[tag]
	ws.mu.Unlock()
	if w == nil {
		return "", false
	}
	info, err := w.merged.Stat(".")
	if err != nil {
		return "", false
	}
	dev := info.Sys().(*syscall.Stat_t).Dev
	return deviceName(unix.Major(dev), unix.Minor(dev)), true
}

// forget lets go of the share with that tag, which is not mounted any more.
func (ws *workspaces) forget(tag string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.all[tag]; w != nil {
		w.close()
		delete(ws.all, tag)
	}
}

// prepareUpper makes the upper layer like the directory over which it lies, or readies one of an earlier boot.
func prepareUpper(dir, lower *os.Root) (*os.Root, error) {
	if err := dir.Mkdir("work", 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	err := dir.Mkdir("data", 0o755)
	fresh := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	upper, err := dir.OpenRoot("data")
	if err == nil && fresh {
		err = likeOf(upper, ".", lower, ".")
	} else if err == nil {
		err = forgetHandles(upper)
	}
	if err != nil && upper != nil {
		upper.Close()
	}
	return upper, err
}

// forgetHandles takes away by what handle a copied file was found on the host. A handle of virtiofs is a number of one
// boot, and would give a file the inode number of another one: then cp and diff take the two for the same file. The
// empty attribute stands for a copy of something unknown.
func forgetHandles(upper *os.Root) error {
	err := fs.WalkDir(upper.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		if _, ok := attribute(upper, name, overlayOrigin); !ok {
			return nil
		}
		return onPath(upper, name, func(path string) error { return unix.Lsetxattr(path, overlayOrigin, nil, 0) })
	})
	if err != nil {
		return fmt.Errorf("cannot go on with the changes of earlier boots: %w", err)
	}
	return nil
}

// onPath calls do with a path that leads to a name in a root, whose last part is not followed. The directories before it
// are opened so that they cannot leave the root.
func onPath(root *os.Root, name string, do func(path string) error) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	return do(fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), path.Base(name)))
}

// attribute returns a short extended attribute.
func attribute(root *os.Root, name, attribute string) (value string, ok bool) {
	buf := make([]byte, 256)
	err := onPath(root, name, func(path string) error {
		n, err := unix.Lgetxattr(path, attribute, buf)
		if err == nil {
			value = string(buf[:n])
		}
		if errors.Is(err, unix.ERANGE) { // it is there, and longer
			err = nil
		}
		return err
	})
	return value, err == nil
}

// List implements [server.Workspace].
func (w *workspace) List(ctx context.Context, visit func(wire.WorkspaceEntry) error) error {
	top, err := w.upper.OpenRoot(".")
	if err != nil {
		return err
	}
	return (&lister{w: w, visit: visit}).dir(ctx, top, ".", false, false)
}

// lister walks what the guest has changed.
type lister struct {
	w     *workspace
	visit func(wire.WorkspaceEntry) error
}

// dir lists a directory, which it closes: one of the upper layer, or, below one that was moved, of what the guest sees.
// In one that is whole nothing shows through of the host's.
func (l *lister) dir(ctx context.Context, dir *os.Root, name string, whole, moved bool) error {
	defer dir.Close()
	entries, err := readDir(dir, ".")
	if err != nil {
		return err
	}
	for _, base := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := l.name(ctx, dir, path.Join(name, base), whole, moved); err != nil {
			return err
		}
	}
	return nil
}

// name lists what has that name in the directory.
func (l *lister) name(ctx context.Context, dir *os.Root, name string, whole, moved bool) error {
	base := path.Base(name)
	info, err := dir.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) { // since it was listed
		return nil
	}
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	entry := wire.WorkspaceEntry{Path: wire.RawString(name), Mode: stat.Mode}
	switch {
	case info.Mode()&fs.ModeCharDevice != 0 && stat.Rdev == 0:
		if whole { // of something that was there before its directory took the place
			return nil
		}
		entry.Mode = 0
	case info.Mode().IsRegular():
		entry.Size = info.Size()
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := dir.Readlink(base)
		if err != nil {
			return err
		}
		entry.Link = wire.RawString(target)
	case info.IsDir():
		if moved && !l.w.own(info) {
			return nil // another share's, which is mounted here
		}
		if !moved {
			opaque, _ := attribute(dir, base, overlayOpaque)
			_, redirected := attribute(dir, base, overlayRedirect)
			if whole = whole || opaque == "y" || redirected; redirected {
				moved, dir, base = true, l.w.merged, name
			}
		}
		entry.Whole, entry.Moved = whole, moved
	}
	if err := l.visit(entry); err != nil || !info.IsDir() {
		return err
	}
	// It bounds the open directories too.
	if err := agent.CheckWorkspacePath(name); err != nil {
		return err
	}
	in, err := dir.OpenRoot(base)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.dir(ctx, in, name, whole, moved)
}

// own tells whether a directory is one of the overlay, and not of something that is mounted in it.
func (w *workspace) own(info fs.FileInfo) bool {
	top, err := w.merged.Lstat(".")
	return err == nil && info.Sys().(*syscall.Stat_t).Dev == top.Sys().(*syscall.Stat_t).Dev
}

// readDir returns the names in a directory in the order of their bytes.
func readDir(root *os.Root, dir string) ([]string, error) {
	f, err := root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	slices.Sort(names)
	return names, err
}

// Open implements [server.Workspace].
func (w *workspace) Open(name string) (io.ReadCloser, error) {
	file, err := openFile(w.upper, name)
	if errors.Is(err, fs.ErrNotExist) { // below a directory that was moved
		return openFile(w.merged, name)
	}
	return file, err
}

// openFile opens a regular file to be read.
func openFile(root *os.Root, name string) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", name)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Keep implements [server.Workspace]. overlayfs copies a file when it is opened to be written, and anything when its
// owner is set.
func (w *workspace) Keep(ctx context.Context, dir string) error {
	return w.walk(ctx, w.merged, dir, func(name string, info fs.FileInfo) error {
		if info.Mode().IsRegular() {
			file, err := w.merged.OpenFile(name, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
			if err != nil {
				return err
			}
			return file.Close()
		}
		stat := info.Sys().(*syscall.Stat_t)
		return w.merged.Lchown(name, int(stat.Uid), int(stat.Gid))
	})
}

// Restore implements [server.Workspace]. It does so by what the guest sees: the upper layer must not be touched while it
// is mounted.
func (w *workspace) Restore(ctx context.Context, name string) error {
	if err := agent.CheckWorkspacePath(name); err != nil {
		return err
	}
	want, err := w.lower.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return w.remove(ctx, name)
	}
	if err != nil {
		return err
	}
	if dir := path.Dir(name); dir != "." {
		if info, err := w.merged.Lstat(dir); err != nil || !info.IsDir() {
			return fmt.Errorf("%s is in a directory that the guest has removed: discard that", name)
		}
	}
	if has, err := w.merged.Lstat(name); err == nil && has.Mode().Type() != want.Mode().Type() {
		if err := w.remove(ctx, name); err != nil {
			return err
		}
	}
	if !want.IsDir() {
		return w.restoreFile(name, want)
	}
	// What is in it that the host has not.
	names, err := readDir(w.merged, name)
	if err != nil {
		return err
	}
	for _, base := range names {
		if _, err := w.lower.Lstat(path.Join(name, base)); errors.Is(err, fs.ErrNotExist) {
			if err := w.remove(ctx, path.Join(name, base)); err != nil {
				return err
			}
		}
	}
	if err := w.merged.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if names, err = readDir(w.lower, name); err != nil {
		return err
	}
	for _, base := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.Restore(ctx, path.Join(name, base)); err != nil {
			return err
		}
	}
	return likeOf(w.merged, name, w.lower, name)
}

// Refresh implements [server.Workspace].
func (w *workspace) Refresh() error { return dropCaches() }

// dropCaches makes the kernel forget what files it has seen, with their contents, as far as they are not in use. An
// overlay does not notice by itself that a file of its lower layer has become another one.
func dropCaches() error {
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}

// restoreFile gives the guest the host's file or link, in one step.
func (w *workspace) restoreFile(name string, want fs.FileInfo) error {
	has, err := w.merged.Lstat(name)
	if err == nil && sameFile(w, name, has, want) {
		return likeOf(w.merged, name, w.lower, name)
	}
	fresh := path.Join(path.Dir(name), ".sandbox-agent-restored")
	_ = w.merged.Remove(fresh) // of a Restore that was interrupted
	switch {
	case want.Mode().IsRegular():
		err = copyFile(w.merged, fresh, w.lower, name)
	case want.Mode()&fs.ModeSymlink != 0:
		var target string
		if target, err = w.lower.Readlink(name); err == nil {
			err = w.merged.Symlink(target, fresh)
		}
	default:
		return nil // a socket or a pipe of the host: nobody in the guest could make one that leads there
	}
	if err == nil {
		err = likeOf(w.merged, fresh, w.lower, name)
	}
	if err == nil {
		err = w.merged.Rename(fresh, name)
	}
	if err != nil {
		_ = w.merged.Remove(fresh)
	}
	return err
}

// sameFile tells whether the guest has the content that the host has.
func sameFile(w *workspace, name string, has, want fs.FileInfo) bool {
	switch {
	case has.Mode().Type() != want.Mode().Type():
		return false
	case want.Mode()&fs.ModeSymlink != 0:
		a, errA := w.merged.Readlink(name)
		b, errB := w.lower.Readlink(name)
		return errA == nil && errB == nil && a == b
	case !want.Mode().IsRegular() || has.Size() != want.Size():
		return false
	}
	a, err := openFile(w.merged, name)
	if err != nil {
		return false
	}
	defer a.Close()
	b, err := openFile(w.lower, name)
	if err != nil {
		return false
	}
	defer b.Close()
	return sameContent(a, b)
}

func sameContent(a, b io.Reader) bool {
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		nA, errA := io.ReadFull(a, bufA)
		nB, errB := io.ReadFull(b, bufB)
		if nA != nB || !bytes.Equal(bufA[:nA], bufB[:nB]) {
			return false
		}
		if errA != nil || errB != nil {
			ended := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
			return ended(errA) && ended(errB)
		}
	}
}

func copyFile(to *os.Root, dest string, from *os.Root, source string) (err error) {
	in, err := openFile(from, source)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.OpenFile(dest, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// likeOf gives what is at a path the owner, the mode and the times of something else.
func likeOf(root *os.Root, name string, model *os.Root, like string) error {
	info, err := model.Lstat(like)
	if err != nil {
		return err
	}
	stat := info.Sys().(*syscall.Stat_t)
	err = root.Lchown(name, int(stat.Uid), int(stat.Gid))
	if err == nil && info.Mode()&fs.ModeSymlink == 0 {
		err = root.Chmod(name, info.Mode().Perm())
		if err == nil {
			err = root.Chtimes(name, time.Time{}, info.ModTime())
		}
	}
	return err
}

// remove takes away what the guest sees at a path, and nothing of what is mounted within it.
func (w *workspace) remove(ctx context.Context, name string) error {
	var dirs []string
	err := w.walk(ctx, w.merged, name, func(name string, info fs.FileInfo) error {
		if info.IsDir() {
			dirs = append(dirs, name)
			return nil
		}
		return w.merged.Remove(name)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, dir := range slices.Backward(dirs) {
		if err == nil {
			err = w.merged.Remove(dir)
		}
	}
	return err
}

// walk calls visit for what is at a path and below, a directory first. What is mounted there is an error.
func (w *workspace) walk(ctx context.Context, root *os.Root, name string, visit func(string, fs.FileInfo) error) error {
	if err := agent.CheckWorkspacePath(name); err != nil {
		return err
	}
	info, err := root.Lstat(name)
	if err != nil {
		return err
	}
	if info.IsDir() && !w.own(info) {
		return fmt.Errorf("%s is a file system of its own: it stays as it is", name)
	}
	if err := visit(name, info); err != nil || !info.IsDir() {
		return err
	}
	names, err := readDir(root, name)
	if err != nil {
		return err
	}
	for _, base := range names {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := w.walk(ctx, root, path.Join(name, base), visit); err != nil {
			return err
		}
	}
	return nil
}
