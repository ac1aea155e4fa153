package machine

import (
	"path/filepath"
	"slices"

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

// withRepositories adds to worktrees of Git their repositories, which have to be where they are on this machine, and so do
// the worktrees: those that would have their usual place get that. Of a repository, the guest can write what its worktrees
// need. One that is a danger to share is not added.
func (h *Host) withRepositories(shares []virtiofs.Share) []virtiofs.Share {
	shares = slices.Clone(shares)
	for i := range shares {
		share := &shares[i]
		name, repository := virtiofs.WorktreeOf(share.Source)
		if name == "" || share.Clone != "" || share.Target != share.Source && share.Target != filepath.Base(share.Source) {
			continue
		}
		at := slices.IndexFunc(shares, func(s virtiofs.Share) bool {
			return s.Source == repository && s.Target == repository && len(s.Rules.Worktrees) > 0
		})
		switch {
		case at >= 0 && shares[at].ReadOnly == share.ReadOnly && shares[at].CopyOnWrite == share.CopyOnWrite:
			shares[at].Rules.Worktrees = append(slices.Clone(shares[at].Rules.Worktrees), name)
		case at >= 0:
			continue
		case !hasPath(shares, repository):
			added := virtiofs.Share{Source: repository, Target: repository, ReadOnly: share.ReadOnly, CopyOnWrite: share.CopyOnWrite}
			added.Rules.Worktrees = []string{name}
			added, err := added.Admit(h.ShareRules())
			if err != nil {
				continue
			}
			shares = append(shares, added)
			share = &shares[i]
		}
		share.Target = share.Source
	}
	return shares
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
