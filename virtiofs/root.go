package virtiofs

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// checkRoot makes sure that virtiofsd, whose first process is pid, has made dir its root. It does so for all its
// processes (pivot_root(2), chroot(2)).
//
// virtiofsd takes no descriptor of a directory: whatever it is given, it turns into a path (realpath(3)) and
// follows that. So what it has come to is compared with dir, before a guest is connected to it. From then on
// nobody can give it another root.
//
// For a file, its root must be a directory that holds the file and nothing else, on another file system: one that was
// mounted for it.
func checkRoot(pid int, dir *hostdir.Dir) error {
	root := fmt.Sprintf("/proc/%d/root", pid)
	if dir.IsFile() {
		return checkAlone(root, dir)
	}
	want, err := dir.Node()
	if err != nil {
		return err
	}
	got, err := hostdir.NodeAt(root)
	if err != nil {
		return fmt.Errorf("looking at what virtiofsd serves: %w", err)
	}
	if got != want {
		return &ChangedError{dir.Path(), "was replaced while virtiofsd started"}
	}
	return nil
}

func checkAlone(root string, file *hostdir.Dir) error {
	want, err := file.Node()
	if err != nil {
		return err
	}
	name := filepath.Base(file.Path())
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("looking at what virtiofsd serves: %w", err)
	}
	if len(entries) != 1 || entries[0].Name() != name {
		return &ChangedError{file.Path(), "was replaced while virtiofsd started"}
	}
	got, err := hostdir.NodeAt(filepath.Join(root, name))
	if err != nil {
		return fmt.Errorf("looking at what virtiofsd serves: %w", err)
	}
	top, err := hostdir.NodeAt(root)
	if err != nil {
		return fmt.Errorf("looking at what virtiofsd serves: %w", err)
	}
	if got != want || top.SameFileSystem(got) {
		return &ChangedError{file.Path(), "was replaced while virtiofsd started"}
	}
	return nil
}
