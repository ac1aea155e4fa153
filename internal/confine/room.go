package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// piece is a part of this machine's file system that is mounted in a room.
type piece struct {
	path string
	tree int // a detached mount
	dir  bool
}

// enter makes a root directory of our own out of an empty file system in memory, in which nothing can be changed,
// and moves there. Files that are to be only read are opened anew before, through mounts that do not allow more.
func (r *jobRoom) enter(files []jobFile) error {
	// Nothing of what follows shows outside.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte("sandbox")); err != nil {
		return fmt.Errorf("naming the host: %w", err)
	}
	for i, f := range files {
		if f.Reopen == Read && f.Path != "" {
			if err := reopenReadOnly(firstFile+i, f.Path); err != nil {
				return fmt.Errorf("opening %s for reading only: %w", f.Path, err)
			}
		}
	}
	pieces, err := r.pieces()
	if err != nil {
		return err
	}
	root, err := newRoot("/proc") // which is there, and is not needed any more
	if err != nil {
		return err
	}
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	for _, p := range pieces {
		if err := p.put(); err != nil {
			return fmt.Errorf("mounting %s: %w", p.path, err)
		}
	}
	for path, target := range r.Links {
		if err := link(path, target); err != nil {
			return fmt.Errorf("linking %s: %w", path, err)
		}
	}
	if err := unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("making the root directory read-only: %w", err)
	}
	unix.Close(root)
	// The old root is put where the new one is, and so below it, from where it is then removed (pivot_root(2)).
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root directory: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root directory: %w", err)
	}
	return unix.Chdir("/")
}

// pieces collects what is to be mounted, while it can be found.
func (r *jobRoom) pieces() ([]piece, error) {
	const common = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID
	var all []piece
	add := func(source, path string, attributes uint64) error {
		tree, err := cloneTree(source, attributes)
		if err != nil {
			return fmt.Errorf("cloning %s: %w", source, err)
		}
		var st unix.Stat_t
		if err := unix.Fstat(tree, &st); err != nil {
			return err
		}
		all = append(all, piece{path, tree, st.Mode&unix.S_IFMT == unix.S_IFDIR})
		return nil
	}
	for _, path := range outermost(r.Paths) {
		if err := add(path, path, common|unix.MOUNT_ATTR_NODEV); err != nil {
			return nil, err
		}
	}
	for _, device := range r.Devices { // writing to a device does not change its file system
		if err := add(device, device, common|unix.MOUNT_ATTR_NOEXEC); err != nil {
			return nil, err
		}
	}
	// Not all of /proc: a container's could not be mounted anew, and nobody needs more.
	err := add("/proc/self", "/proc/self", common|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	return all, err
}

// outermost leaves out what is below another path.
func outermost(paths []string) (list []string) {
	paths = slices.Sorted(slices.Values(paths))
	for _, path := range paths {
		inside := func(outer string) bool { return path == outer || strings.HasPrefix(path, outer+"/") }
		if !slices.ContainsFunc(list, inside) {
			list = append(list, path)
		}
	}
	return list
}

// cloneTree returns a mount of its own of what is at the path, and of all that is mounted below.
func cloneTree(path string, attributes uint64) (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, err
	}
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attributes})
	if err != nil {
		unix.Close(tree)
		return -1, err
	}
	return tree, nil
}

// newRoot mounts an empty file system on a directory that is there, and returns a descriptor of it.
func newRoot(on string) (int, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("making a root directory: %w", err)
	}
	defer unix.Close(fs)
	err = errors.Join(unix.FsconfigSetString(fs, "size", "1M"), unix.FsconfigSetString(fs, "mode", "0755"), unix.FsconfigCreate(fs))
	if err != nil {
		return -1, fmt.Errorf("making a root directory: %w", err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err == nil {
		err = unix.MoveMount(root, "", unix.AT_FDCWD, on, unix.MOVE_MOUNT_F_EMPTY_PATH)
	}
	if err != nil {
		return -1, fmt.Errorf("mounting a root directory: %w", err)
	}
	return root, nil
}

// AloneError reports that a file cannot be shown alone, see Spec.Alone.
type AloneError struct {
	// Reason is the kernel's.
	Reason string
}

func (e *AloneError) Error() string { return e.Reason }

// showAlone mounts an empty file system over the directory that the file is in, and in it the file.
func showAlone(path string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making the mounts private: %w", err)
	}
	tree, err := cloneTree(path, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	if err != nil {
		return err
	}
	root, err := newRoot(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := unix.Fchdir(root); err != nil {
		return err
	}
	if err := (piece{path: filepath.Base(path), tree: tree}).put(); err != nil {
		return err
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return unix.MountSetattr(root, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
}

// put mounts the piece below the working directory.
func (p piece) put() error {
	defer unix.Close(p.tree)
	at := strings.TrimPrefix(p.path, "/")
	if p.dir {
		if err := os.MkdirAll(at, 0o755); err != nil {
			return err
		}
	} else {
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(at, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o444)
		if err != nil {
			return err
		}
		f.Close()
	}
	return unix.MoveMount(p.tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// link makes a symbolic link below the working directory, unless what is mounted there has it already.
func link(path, target string) error {
	at := strings.TrimPrefix(path, "/")
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		return err
	}
	err := os.Symlink(target, at)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	return err
}

// reopenReadOnly puts the file at the path, which must be the one that the descriptor is of, in its place.
func reopenReadOnly(fd int, path string) error {
	tree, err := cloneTree(path, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if errors.Is(err, unix.EACCES) {
		return nil // whoever may not go there does not own it
	}
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	var there, had unix.Stat_t
	if err := errors.Join(unix.Fstat(tree, &there), unix.Fstat(fd, &had)); err != nil {
		return err
	}
	if there.Dev != had.Dev || there.Ino != had.Ino {
		return errors.New("another file has taken its place")
	}
	opened, err := unix.Open("/proc/self/fd/"+strconv.Itoa(tree), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(opened)
	return unix.Dup3(opened, fd, 0)
}
