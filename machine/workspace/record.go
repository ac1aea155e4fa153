package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/sourcery-zone/sandbox/agent"
)

func key(path string) string {
	sum := sha256.Sum256([]byte(path))
	return hex.EncodeToString(sum[:16])
}

// signature is a text that is equal for equal states of a path. sum is called for a regular file.
func signature(s Side, sum func() ([32]byte, error)) (string, error) {
	switch s.Mode.Type() {
	case 0:
		digest, err := sum()
		return fmt.Sprintf("file %04o %x", s.Mode.Perm(), digest), err
	case fs.ModeSymlink:
		return fmt.Sprintf("link %x", sha256.Sum256([]byte(s.Link))), nil
	case fs.ModeDir:
		return "directory", nil
	}
	return "other", nil
}

const signatureGone = "gone"

// settled tells whether the guest has at the path what it had when the two sides were last of one mind. Then what is
// other is the host's doing.
func (s *Share) settled(ctx context.Context, c Change) (bool, error) {
	known, ok := s.Record.Settled[key(c.Path)]
	if !ok {
		return false, nil
	}
	now := signatureGone
	if c.Kind != Removed {
		var err error
		now, err = signature(c.New, func() ([32]byte, error) { return s.Guest.Sum(ctx, c.Path) })
		if _, gone := errors.AsType[*agent.WorkspaceError](err); gone { // it is changing at this moment
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return now == known.Guest, nil
}

// settle notes that both sides have the same at the path now: side, of which sum is the digest if it is a regular file.
func (s *Share) settle(path string, side Side, sum [32]byte, host *node) {
	now := Settled{Guest: signatureGone}
	if side.Mode != 0 || host != nil {
		now.Guest, _ = signature(side, func() ([32]byte, error) { return sum, nil })
	}
	if host != nil {
		now.Inode, now.Ctime = host.ino, host.ctime
	}
	if s.Record.Settled == nil {
		s.Record.Settled = make(map[string]Settled)
	}
	s.Record.Settled[key(path)] = now
}

// changedSince tells whether the host's has changed, as far as the guest's changes know it.
func (s *Share) changedSince(path string, n *node) bool {
	if n.ctime <= s.Record.Since.UnixNano() {
		return false
	}
	known, ok := s.Record.Settled[key(path)]
	return !ok || known.Inode != n.ino || known.Ctime != n.ctime
}

func sumOf(r io.Reader) (sum [32]byte, err error) {
	h := sha256.New()
	_, err = io.Copy(h, r)
	return [32]byte(h.Sum(nil)), err
}
