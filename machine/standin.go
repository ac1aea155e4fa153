package machine

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// standIn is a repository that has the objects, names and index of another one, and neither its settings nor its hooks, in
// which somebody may have told Git what to execute.
type standIn struct {
	dir  string // its own directory
	tree string // the working tree
}

// noHead is for a stand-in in which nothing is checked out.
const noHead = "ref: refs/heads/none\n"

// newStandIn makes one in a new directory of the repository to which the directory tree belongs.
func newStandIn(dir, tree string) (_ standIn, err error) {
	own, common := virtiofs.LinkedRepository(tree)
	if own == "" {
		own = filepath.Join(tree, ".git")
		common = own
	}
	s := standIn{dir, tree}
	head, err := os.ReadFile(filepath.Join(own, "HEAD"))
	if err != nil {
		return s, err
	}
	index, err := os.ReadFile(filepath.Join(own, "index"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return s, err
	}
	return s, s.make(head, index, filepath.Join(common, "objects"), common)
}

// make writes what the stand-in has of its own, and lets it have objects of others, and the names of a repository unless that
// is empty.
func (s standIn) make(head, index []byte, objects, names string) (err error) {
	for _, dir := range []string{"objects/info", "refs"} {
		if dir == "refs" && names != "" {
			break // a link
		}
		if err := os.MkdirAll(filepath.Join(s.dir, dir), 0o700); err != nil {
			return err
		}
	}
	for name, text := range map[string][]byte{
		"HEAD": head, "index": index, "objects/info/alternates": []byte(objects + "\n"),
	} {
		if len(text) > 0 {
			err = errors.Join(err, os.WriteFile(filepath.Join(s.dir, name), text, 0o600))
		}
	}
	if names == "" {
		return err
	}
	for _, name := range []string{"refs", "packed-refs"} {
		err = errors.Join(err, os.Symlink(filepath.Join(names, name), filepath.Join(s.dir, name)))
	}
	return err
}

// git runs a command of Git's with that input. It ends in a few seconds, or is ended.
func (s standIn) git(ctx context.Context, input []byte, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, gitPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir, cmd.Stdin = s.dir, bytes.NewReader(input)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_OPTIONAL_LOCKS=0",
		"GIT_DIR=" + s.dir, "GIT_LITERAL_PATHSPECS=1", "GIT_NO_LAZY_FETCH=1",
	}
	if s.tree != "" {
		cmd.Dir = s.tree
		cmd.Env = append(cmd.Env, "GIT_WORK_TREE="+s.tree)
	}
	return cmd.Output()
}

// HasUncommitted tells whether the working tree of a directory has something that its repository has in no commit, as far
// as git can tell in a few seconds.
func HasUncommitted(ctx context.Context, dir string) bool {
	stand, err := os.MkdirTemp("", "sandbox-status-") // 0700
	if err != nil {
		return false
	}
	defer os.RemoveAll(stand)
	s, err := newStandIn(stand, dir)
	if err != nil {
		return false
	}
	out, err := s.git(ctx, nil, "status", "--porcelain", "--ignore-submodules=all")
	return err == nil && len(out) > 0
}
