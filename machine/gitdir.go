package machine

import (
	"path/filepath"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// FarRepository is a share that is a worktree or a submodule of Git, whose repository the guest does not have where git
// looks for it, so that git does not work in it.
type FarRepository struct {
	Share virtiofs.Share
	// Directory is the repository's, such as /src/app/.git. It is what a file in the share says, which a guest may have
	// written.
	Directory string
}

// FarRepositories are those of the shares, which must have their places in the guest.
func FarRepositories(shares []virtiofs.Share) (far []FarRepository) {
	for _, s := range shares {
		_, dir := virtiofs.LinkedRepository(s.Source)
		if dir == "" || hasPath(shares, dir) && s.Target == s.Source {
			continue
		}
		far = append(far, FarRepository{s, dir})
	}
	return far
}

// hasPath tells whether a guest has a directory of this machine at the same path.
func hasPath(shares []virtiofs.Share, dir string) bool {
	for _, s := range shares {
		if rel, err := filepath.Rel(s.Source, dir); err == nil && filepath.IsLocal(rel) && filepath.Join(s.Target, rel) == dir {
			return true
		}
	}
	return false
}
