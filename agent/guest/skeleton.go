//go:build linux

package guest

import (
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent/boot"
)

// fillHome copies the image's skeleton of a home into one that is empty, as
// useradd(8) does. A home in which the user has made anything stays alone.
func fillHome(skeleton, home string, user boot.User) error {
	if entries, err := os.ReadDir(home); err != nil || len(entries) > 0 {
		return err
	}
	return filepath.WalkDir(skeleton, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			if path == skeleton {
				return fs.SkipAll // an image need not have one
			}
			return err
		}
		name, err := filepath.Rel(skeleton, path)
		if err != nil || name == "." {
			return err
		}
		target := filepath.Join(home, name)
		if err := copyEntry(path, target, entry); err != nil {
			return err
		}
		return giveTo(unix.AT_FDCWD, target, user)
	})
}

// copyEntry copies a directory without its contents, a link, or a file.
func copyEntry(from, to string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	switch {
	case entry.IsDir():
		return os.Mkdir(to, info.Mode().Perm())
	case info.Mode()&fs.ModeSymlink != 0:
		link, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(link, to)
	default:
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, info.Mode().Perm())
	}
}
