package machine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// checkFetched finds a clone with commits that would be lost with the sandbox, as its repository here has not got them, or of
// which that cannot be known. What is not committed is not looked at.
func (s *Sandbox) checkFetched(ctx context.Context) error {
	c, err := s.Config()
	st := s.State()
	if err != nil || st.Started.IsZero() {
		return nil // a broken one has to be removable, and a new one has no commits
	}
	for _, share := range c.Shares {
		if share.Clone == "" {
			continue
		}
		tips, known := st.Clones[share.Target]
		missing := false
		if known && len(tips) > 0 {
			missing, err = lacksCommits(ctx, share, tips)
		}
		switch {
		case !known || err != nil:
			return fmt.Errorf("it is not known whether %s has all commits of the guest's clone at %s: while it runs, git fetch sandbox::%s gets them, and when it is stopped they are noted", share.Source, share.Target, s.Name)
		case missing:
			return fmt.Errorf("%s has not got all commits of the guest's clone at %s: while it runs, git fetch sandbox::%s '+refs/heads/*:refs/remotes/%[3]s/*' gets them", share.Source, share.Target, s.Name)
		}
	}
	return nil
}

// lacksCommits tells whether the repository of a share does not have one of the commits. Git reads it without its settings.
func lacksCommits(ctx context.Context, share virtiofs.Share, commits []string) (bool, error) {
	dir, err := os.MkdirTemp("", "sandbox-fetched-") // 0700
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	origin := standIn{dir: dir}
	if err := origin.make([]byte(noHead), nil, filepath.Join(share.Source, "objects"), ""); err != nil {
		return false, err
	}
	found, err := origin.git(ctx, []byte(strings.Join(commits, "\n")+"\n"), "cat-file", "--batch-check=%(objecttype)")
	return strings.Count(string(found), "commit\n") < len(commits), err
}
