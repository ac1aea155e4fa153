package machine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/workspace"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// keepMergeBases keeps of each copy-on-write share that is the top of a working tree what git knows to be in it: with that,
// what changes on both sides can be merged later. Files of which git does not know are not kept, nor is anything where
// it takes too long, or fails: then there is no merge.
func (s *Sandbox) keepMergeBases(ctx context.Context, c Config) error {
	for _, share := range c.Shares {
		if !share.CopyOnWrite {
			continue
		}
		dir := s.mergeBase(share)
		stand, err := newStandIn(dir, share.Source)
		if err == nil {
			err = stand.addModified(ctx)
		}
		if err == nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// addModified puts the working tree's content of all files that git knows into the index. That of submodules is theirs.
func (s standIn) addModified(ctx context.Context) error {
	names, err := s.git(ctx, nil, "diff-files", "--name-only", "-z", "--ignore-submodules=all", "--diff-filter=M")
	if err == nil && len(names) > 0 {
		_, err = s.git(ctx, names, "update-index", "-z", "--stdin")
	}
	return err
}

// mergeBase is where that of a share is kept.
func (s *Sandbox) mergeBase(share virtiofs.Share) string {
	return filepath.Join(s.Files().Path(layout.MergeBases), strings.ReplaceAll(strings.Trim(share.Target, "/"), "/", "!"))
}

// asideOf ends the name of the merge base of a share that is not mounted.
func asideOf(share virtiofs.Share) string {
	sum := sha256.Sum256([]byte(share.Source))
	return "@" + hex.EncodeToString(sum[:8])
}

// baseOf returns the content that a file had in a share when the sandbox was made, or an error where it is not known.
func (s *Sandbox) baseOf(share virtiofs.Share) func(ctx context.Context, path string) ([]byte, error) {
	dir := s.mergeBase(share)
	if !durable.Exists(dir) {
		return nil
	}
	stand := standIn{dir: dir}
	return func(ctx context.Context, path string) ([]byte, error) {
		id, err := stand.git(ctx, nil, "rev-parse", "--verify", "--end-of-options", ":0:"+path)
		if err != nil {
			return nil, err
		}
		object := strings.TrimSpace(string(id))
		digits, err := stand.git(ctx, nil, "cat-file", "-s", object)
		if err != nil {
			return nil, err
		}
		if size, err := strconv.ParseInt(strings.TrimSpace(string(digits)), 10, 64); err != nil || size > workspace.MaxText {
			return nil, errors.New("it is too large")
		}
		return stand.git(ctx, nil, "cat-file", "blob", object)
	}
}
