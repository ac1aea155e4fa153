//go:build linux

package guest

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// openIn opens a path of a root that is not this process's own. Symbolic links
// lead where they will lead once it is, absolute ones too.
func openIn(root, path string, flags int) (*os.File, error) {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: root, Err: err}
	}
	defer unix.Close(dir)
	fd, err := unix.Openat2(dir, path, &unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// readIn reads a file of such a root.
func readIn(root, path string) ([]byte, error) {
	file, err := openIn(root, path, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return io.ReadAll(file)
}

// existsIn tells whether such a root has something by that path.
func existsIn(root, path string) bool {
	file, err := openIn(root, path, unix.O_PATH)
	if err != nil {
		return false
	}
	return file.Close() == nil
}
