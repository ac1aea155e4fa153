//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
)

const (
	maxFiles       = 16
	maxFileContent = 64 << 10 // bytes, also of one that is there already and may be replaced
)

// checkFiles quotes nothing of their content.
func checkFiles(files []agent.File) error {
	if len(files) > maxFiles {
		return fmt.Errorf("%d files for the home are too many", len(files))
	}
	for _, f := range files {
		if !filepath.IsLocal(f.Path) || path.Clean(f.Path) != f.Path || f.Path == "." || len(f.Content) > maxFileContent {
			return fmt.Errorf("the file %q for the home is not in it, or too large", f.Path)
		}
	}
	return nil
}

// writeFiles writes files into the user's home, for him alone. What the user has there is his: a file that cannot be written
// is no reason to have no guest.
func (s *service) writeFiles(root string, files []agent.File) {
	for _, f := range files {
		if err := writeFile(filepath.Join(root, s.image.User.Home), s.image.User, f); err != nil {
			s.logger.Warn("a file of the host is not in the home", "path", f.Path, "err", err)
		}
	}
}

func writeFile(home string, user boot.User, f agent.File) error {
	in, err := os.OpenRoot(home) // which links do not lead out of
	if err != nil {
		return err
	}
	defer in.Close()
	if err := makeDirs(in, path.Dir(f.Path), user); err != nil {
		return err
	}
	if replace, err := replaceable(in, f); err != nil || !replace {
		return err
	}
	draft := f.Path + ".sandbox-agent"
	if err := in.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	fresh, err := in.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = fresh.Write(f.Content)
	if err == nil {
		err = fresh.Chown(user.UID, user.GID)
	}
	if err = errors.Join(err, fresh.Close()); err == nil {
		err = in.Rename(draft, f.Path)
	}
	if err != nil {
		return errors.Join(err, in.Remove(draft))
	}
	return nil
}

// makeDirs makes what is missing of a directory in the home, and refuses one of another file system: a share's is the host's.
func makeDirs(in *os.Root, dir string, user boot.User) error {
	home, err := in.Stat(".")
	if err != nil {
		return err
	}
	below := "."
	for part := range strings.SplitSeq(dir, "/") {
		below = path.Join(below, part)
		switch err := in.Mkdir(below, 0o700); {
		case err == nil:
			err = in.Lchown(below, user.UID, user.GID)
			if err != nil {
				return err
			}
		case !errors.Is(err, fs.ErrExist) && below != ".":
			return err
		}
		info, err := in.Stat(below)
		if err != nil {
			return err
		}
		if info.Sys().(*syscall.Stat_t).Dev != home.Sys().(*syscall.Stat_t).Dev {
			return errors.New("its directory is a share")
		}
	}
	return nil
}

// replaceable tells whether nothing is there, or what is ours.
func replaceable(in *os.Root, f agent.File) (bool, error) {
	info, err := in.Lstat(f.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, nil
	case err != nil:
		return false, err
	case f.Ours == "" || !info.Mode().IsRegular() || info.Size() > maxFileContent:
		return false, nil
	}
	old, err := in.ReadFile(f.Path)
	return strings.Contains(string(old), f.Ours) && string(old) != string(f.Content), err
}
