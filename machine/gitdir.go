package machine

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

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
		dir := repositoryOf(s.Source)
		if dir == "" || hasPath(shares, dir) && s.Target == s.Source {
			continue
		}
		far = append(far, FarRepository{s, dir})
	}
	return far
}

// repositoryOf is the directory of Git to which the file .git of a directory leads (gitrepository-layout(5)), or nothing.
func repositoryOf(dir string) string {
	text, ok := strings.CutPrefix(readLine(filepath.Join(dir, ".git")), "gitdir: ")
	if !ok {
		return ""
	}
	own := absoluteIn(dir, text)
	if common := readLine(filepath.Join(own, "commondir")); common != "" {
		return absoluteIn(own, common)
	}
	return own
}

func absoluteIn(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

// readLine is the first line of a small file, or nothing.
func readLine(name string) string {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, 2*unix.PathMax))
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return line
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
