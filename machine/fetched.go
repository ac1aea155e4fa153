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
		missing := 0
		if known && len(tips) > 0 {
			missing, err = missingCommits(ctx, share, tips)
		}
		switch {
		case !known || err != nil:
			return fmt.Errorf("it is not known whether %s has all commits of the guest's clone at %s: while it runs, git fetch sandbox::%s gets them, and when it is stopped they are noted", share.Source, share.Target, s.Name)
		case missing > 0:
			return fmt.Errorf("%s has not got the commits of %d branches of the guest's clone at %s: while it runs, git fetch sandbox::%s '+refs/heads/*:refs/remotes/%[4]s/*' gets them", share.Source, missing, share.Target, s.Name)
		}
	}
	return nil
}

// missingCommits counts those of the commits that the repository of a share does not have. Git reads it without its settings.
func missingCommits(ctx context.Context, share virtiofs.Share, commits []string) (int, error) {
	dir, err := os.MkdirTemp("", "sandbox-fetched-") // 0700
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	origin := standIn{dir: dir}
	if err := origin.make([]byte(noHead), nil, filepath.Join(share.Source, "objects"), ""); err != nil {
		return 0, err
	}
	found, err := origin.git(ctx, []byte(strings.Join(commits, "\n")+"\n"), "cat-file", "--batch-check=%(objecttype)")
	return len(commits) - strings.Count(string(found), "commit\n"), err
}
