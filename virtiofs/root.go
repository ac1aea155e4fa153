package virtiofs

import (
	"fmt"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// checkRoot makes sure that virtiofsd, whose first process is pid, has made dir its root. It does so for all its
// processes (pivot_root(2), chroot(2)).
//
// virtiofsd takes no descriptor of a directory: whatever it is given, it turns into a path (realpath(3)) and
// follows that. So what it has come to is compared with dir, before a guest is connected to it. From then on
// nobody can give it another root.
func checkRoot(pid int, dir *hostdir.Dir) error {
	want, err := dir.Node()
	if err != nil {
		return err
	}
	got, err := hostdir.NodeAt(fmt.Sprintf("/proc/%d/root", pid))
	if err != nil {
		return fmt.Errorf("looking at what virtiofsd serves: %w", err)
	}
	if got != want {
		return &ChangedError{dir.Path(), "was replaced while virtiofsd started"}
	}
	return nil
}
