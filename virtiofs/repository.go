package virtiofs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// LinkedRepository is where Git has what belongs to a directory of which .git is a file: that of a worktree or of a
// submodule (gitrepository-layout(5)). common is the repository, and own what is this worktree's; for a submodule they are
// the same. Both are what a file in the directory says, which a guest may have written. They are empty where it is none.
func LinkedRepository(dir string) (own, common string) {
	text, ok := strings.CutPrefix(readLine(filepath.Join(dir, ".git")), "gitdir: ")
	if !ok {
		return "", ""
	}
	own = absoluteIn(dir, text)
	if common := readLine(filepath.Join(own, "commondir")); common != "" {
		return own, absoluteIn(own, common)
	}
	return own, own
}

// WorktreeOf is the name of a worktree, of which dir is the directory, and its repository. It is one only if the repository
// says so too: a file .git that somebody has put into a directory does not make it another one's. Empty: it is none.
func WorktreeOf(dir string) (name, repository string) {
	own, common := LinkedRepository(dir)
	name, ok := strings.CutPrefix(own, filepath.Join(common, "worktrees")+"/")
	back := readLine(filepath.Join(own, "gitdir"))
	if own == "" || !ok || strings.Contains(name, "/") || back == "" || absoluteIn(own, back) != filepath.Join(dir, ".git") {
		return "", ""
	}
	return name, common
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

// isRepository tells whether Git would take a directory for a repository, as far as its names say.
func isRepository(dir string) bool {
	for _, name := range []string{"HEAD", "objects", "refs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return false
		}
	}
	return true
}

// settings are those of a repository in lower case, or nothing.
func settings(dir string) string {
	f, err := os.OpenFile(filepath.Join(dir, "config"), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	text, _ := io.ReadAll(io.LimitReader(f, rules.MaxContent)) // that of what is no file is nothing
	return strings.ToLower(string(text))
}

// cloned is the share of the repository that a directory with a working tree belongs to, for a guest that gets a clone.
func (s Share) cloned() (Share, error) {
	own := filepath.Join(s.Source, ".git")
	common := own
	if o, c := LinkedRepository(s.Source); o != "" {
		own, common = o, c
	} else if !isRepository(common) {
		own, common = s.Source, s.Source
	}
	common, err := hostdir.Resolve(common)
	if err != nil || !isRepository(common) {
		return s, fmt.Errorf("%s is no repository of Git, of which a guest could have a clone: share the directory of one, or share it otherwise", s.Source)
	}
	for _, extension := range []string{"objectformat", "refstorage", "partialclone"} {
		if strings.Contains(settings(common), extension) {
			return s, fmt.Errorf("a guest can have no clone of the repository %s, whose settings have %s: share it otherwise", common, extension)
		}
	}
	if _, err := os.Stat(filepath.Join(common, "objects/info/alternates")); err == nil {
		return s, fmt.Errorf("the repository %s has objects in another one, which the guest would lack: git -C %[1]s repack -a -d gets them, and then remove %[1]s/objects/info/alternates", common)
	}
	if s.Clone == CloneHead && own != common {
		head := readLine(filepath.Join(own, "HEAD"))
		if s.Clone = strings.TrimPrefix(strings.TrimPrefix(head, "ref: "), "refs/heads/"); s.Clone == "" || s.Clone[0] == '-' {
			return s, errors.New("what is checked out in " + s.Source + " cannot be found out: git -C " + s.Source + " status says what is wrong with it")
		}
	}
	s.Source = common
	return s, nil
}

// originRules let a guest read what a clone is made of: neither settings, in which there can be passwords, nor hooks, logs
// and what belongs to working trees.
var originRules = rules.Choice{
	None: true, Hide: []string{"*/"}, Allow: []string{"HEAD", "packed-refs", "shallow", "objects/", "refs/"},
}

// MountPoint is where the guest has the directory itself: beside Target where it gets a clone there.
func (s Share) MountPoint() string {
	if s.Clone == "" {
		return s.Target
	}
	return s.Target + ".git"
}
