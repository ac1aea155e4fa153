package virtiofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
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

// SubmoduleOf is the repository of a submodule, of which dir is the directory, if that is not in the directory itself. It is
// one only if the repository's own settings say so too. Empty: it is none.
func SubmoduleOf(dir string) (repository string) {
	own, common := LinkedRepository(dir)
	if own == "" || own != common || !isRepository(own) {
		return ""
	}
	tree := rules.WorkingTree(settings(own))
	if tree == "" || absoluteIn(own, tree) != filepath.Clean(dir) {
		return ""
	}
	return own
}

// maxSubmodules bounds how many directories are looked at for the repositories of submodules.
const maxSubmodules = 1024

// RepositoriesIn are the repository that a share is or has, and those of submodules in it, relative to the share.
func RepositoriesIn(s Share) (found []string) {
	dir := ""
	switch {
	case isRepository(filepath.Join(s.Source, ".git")):
		dir = ".git"
	case isRepository(s.Source):
		dir = "."
	default:
		return nil
	}
	if s.Clone != "" { // the guest gets one of that repository alone
		return []string{dir}
	}
	looked := 0
	return appendSubmodules([]string{dir}, s.Source, dir, &looked)
}

// appendSubmodules adds the repositories of the submodules of one that is in the directory top: those of its own, and of each
// of its worktrees.
func appendSubmodules(found []string, top, repository string, looked *int) []string {
	within := []string{path.Join(repository, "modules")}
	for _, worktree := range directoriesIn(filepath.Join(top, repository, "worktrees")) {
		within = append(within, path.Join(repository, "worktrees", worktree, "modules"))
	}
	for len(within) > 0 {
		dir := within[0]
		within = within[1:]
		for _, name := range directoriesIn(filepath.Join(top, dir)) {
			if *looked++; *looked > maxSubmodules {
				return found
			}
			name = path.Join(dir, name)
			if isRepository(filepath.Join(top, name)) {
				found = appendSubmodules(append(found, name), top, name, looked)
			} else { // names of submodules have slashes
				within = append(within, name)
			}
		}
	}
	return found
}

// directoriesIn are those in a directory, of which the first are looked at. Mostly there is none. Links lead elsewhere.
func directoriesIn(dir string) (names []string) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(maxSubmodules)
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names
}

// KeepsAlternates tells whether the guest cannot change what a repository in the share borrows, as long as it has the share.
func (s Share) KeepsAlternates(repository string) bool {
	if s.ReadOnly && !s.CopyOnWrite {
		return true
	}
	within, err := filepath.Rel(s.Source, repository)
	if err != nil {
		return false
	}
	choice := s.Rules
	choice.Above = aboveRules(s.Source)
	set, err := rules.New(choice)
	return err == nil && set.Judge(rules.Access{Operation: rules.Make, Path: path.Join(within, "objects", alternatesFile)}).Refused
}

// alternatesFile is in a directory of objects.
const alternatesFile = "info/alternates"

// maxAlternates bounds, in bytes, a list of directories with more objects.
const maxAlternates = 64 << 10

// Alternates are the directories in which Git looks for what is missing in a directory of objects, as its file says, which a
// guest or a stranger may have written: absolute, or relative to that directory (gitrepository-layout(5)). Names in quotes are
// left out.
func Alternates(objects string) (dirs []string) {
	for line := range strings.Lines(readSmall(filepath.Join(objects, alternatesFile), maxAlternates)) {
		line = strings.TrimSuffix(line, "\n")
		if line != "" && line[0] != '#' && line[0] != '"' {
			dirs = append(dirs, line)
		}
	}
	return dirs
}

// IsObjects tells whether a directory is that of a repository's objects.
func IsObjects(dir string) bool {
	return filepath.Base(dir) == "objects" && isRepository(filepath.Dir(dir))
}

func absoluteIn(dir, path string) string {
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	return filepath.Clean(path)
}

// readLine is the first line of a small file, or nothing.
func readLine(name string) string {
	line, _, _ := strings.Cut(readSmall(name, 2*unix.PathMax), "\n")
	return line
}

// readSmall is what a file begins with, or nothing.
func readSmall(name string, most int64) string {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return ""
	}
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return ""
	}
	return string(text)
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

// settings are those of a repository, or nothing.
func settings(dir string) []byte {
	return []byte(readSmall(filepath.Join(dir, "config"), rules.MaxContent))
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
		if bytes.Contains(bytes.ToLower(settings(common)), []byte(extension)) {
			return s, fmt.Errorf("a guest can have no clone of the repository %s, whose settings have %s: share it otherwise", common, extension)
		}
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

// objectRules let a guest read objects, and nothing that somebody has put beside them.
var objectRules = rules.Choice{
	None: true, Hide: []string{"*/"}, Allow: []string{
		"[0-9a-f][0-9a-f]", "[0-9a-f][0-9a-f]/[0-9a-f]*", "pack", "pack/pack-*", "pack/multi-pack-index*",
		"info", "info/alternates", "info/packs", "info/commit-graph", "info/commit-graphs/",
	},
}

// MountPoint is where the guest has the directory itself: beside Target where it gets a clone there.
func (s Share) MountPoint() string {
	if s.Clone == "" {
		return s.Target
	}
	return s.Target + ".git"
}
