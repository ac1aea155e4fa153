package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// copyTree makes to, an empty directory or none, a copy of from with all that
// belongs to its files, which shares their blocks where the file system can do
// that.
func copyTree(ctx context.Context, from, to string) error {
	cmd := exec.CommandContext(ctx, "cp", "--archive", "--reflink=auto", "--no-target-directory", "--", from, to)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("copying %s: %w: %s", from, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// restoreHome puts the home of the snapshot in the place of the sandbox's, if
// that was asked for. What was there is kept until the guest has started: an
// early end of ours, at any moment, leaves it for recoverHome.
func (v *supervisor) restoreHome(ctx context.Context) error {
	if err := v.recoverHome(); err != nil || !v.withHome {
		return err
	}
	draft := v.s.path(hiddenName(draftPrefix, homeDir))
	if err := copyTree(ctx, filepath.Join(v.saved.dir, homeDir), draft); err != nil {
		return errors.Join(err, removeTree(draft))
	}
	if err := os.Rename(v.s.HomePath(), v.s.path(homeBefore)); err != nil {
		return err
	}
	return os.Rename(draft, v.s.HomePath())
}

// recoverHome takes back what a restore did to the home that did not come to
// its end.
func (v *supervisor) recoverHome() error {
	before := v.s.path(homeBefore)
	if !exists(before) {
		return nil
	}
	return errors.Join(removeDir(v.s.HomePath()), os.Rename(before, v.s.HomePath()))
}
