package machine

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// What a share says of where Git has the rest of it, a guest or a stranger may have written. So nothing is shared because of
// it but what says the same of the share: a repository that names its worktree or submodule, and objects that the share's own
// history names. All of it is decided when a sandbox is made. Later starts share what was decided then.

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

// SubmoduleRepositories are the shares that are repositories of submodules which are shared too, each with its submodule.
func SubmoduleRepositories(shares []virtiofs.Share) map[string]string {
	found := map[string]string{}
	for _, s := range shares {
		repository := virtiofs.SubmoduleOf(s.Source)
		if repository != "" && slices.ContainsFunc(shares, func(other virtiofs.Share) bool { return other.Source == repository }) {
			found[repository] = s.Source
		}
	}
	return found
}

// withRepositories adds to worktrees and submodules of Git their repositories, which have to be where they are on this
// machine, and so do the worktrees: those that would have their usual place get that. Of a repository, the guest can write
// what its worktrees need. One that is a danger to share is not added.
func (h *Host) withRepositories(shares []virtiofs.Share) []virtiofs.Share {
	shares = slices.Clone(shares)
	for i := range shares {
		share := &shares[i]
		if share.Clone != "" || share.Target != share.Source && share.Target != filepath.Base(share.Source) {
			continue
		}
		name, repository := virtiofs.WorktreeOf(share.Source)
		if name == "" {
			repository = virtiofs.SubmoduleOf(share.Source)
		}
		if repository == "" {
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
			if name != "" {
				added.Rules.Worktrees = []string{name}
			}
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
func hasPath(shares []virtiofs.Share, dir string) bool { return hasAt(shares, dir, dir) }

// hasAt tells whether a guest has a directory of this machine at a path.
func hasAt(shares []virtiofs.Share, dir, target string) bool {
	for _, s := range shares {
		if rel, err := filepath.Rel(s.Source, dir); err == nil && filepath.IsLocal(rel) && filepath.Join(s.MountPoint(), rel) == target {
			return true
		}
	}
	return false
}

// Borrowed is a directory of objects in which Git looks for what a repository in a share does not have itself.
type Borrowed struct {
	Share virtiofs.Share // in which there is the repository that borrows, or that borrows from one which does
	// Repository is where that one is, such as /src/app/.git, or that of a submodule in it.
	Repository string
	Directory  string // on this machine: what a file in the share says, which a guest may have written
	Target     string // where git in the guest looks for it
	Shared     bool   // the guest has it there
}

const (
	// maxAlternateDepth is from where on Git ignores what alternates borrow themselves: link_alt_odb_entries in its odb.c.
	maxAlternateDepth = 5

	// maxBorrowed bounds how many directories are looked at. Each that is shared takes a process and a slot.
	maxBorrowed = 8
)

// BorrowedObjects are those of the shares, which must have their places in the guest.
func BorrowedObjects(shares []virtiofs.Share) (all []Borrowed) {
	for _, s := range shares {
		if s.File || s.Objects {
			continue
		}
		for _, repository := range virtiofs.RepositoriesIn(s) {
			b := Borrowed{Share: s, Repository: filepath.Join(s.Source, repository)}
			all = b.appendOf(all, shares, filepath.Join(b.Repository, "objects"), path.Join(s.MountPoint(), repository, "objects"), 0)
		}
	}
	return all
}

// appendOf adds what the objects in a directory borrow, which the guest has at the path target.
func (b Borrowed) appendOf(all []Borrowed, shares []virtiofs.Share, dir, target string, depth int) []Borrowed {
	if depth > maxAlternateDepth {
		return all
	}
	for _, name := range virtiofs.Alternates(dir) {
		b.Directory, b.Target = path.Clean(name), path.Clean(name)
		if !path.IsAbs(name) {
			b.Directory, b.Target = path.Join(dir, name), path.Join(target, name)
		}
		if resolved, err := hostdir.Resolve(b.Directory); err == nil {
			b.Directory = resolved
		}
		known := slices.ContainsFunc(all, func(other Borrowed) bool { return other.Target == b.Target })
		if known || len(all) == maxBorrowed {
			continue
		}
		b.Shared = hasAt(shares, b.Directory, b.Target)
		all = b.appendOf(append(all, b), shares, b.Directory, b.Target, depth+1)
	}
	return all
}

// withBorrowed adds to shares, which have absolute targets, the directories of objects from which their repositories borrow,
// where git in the guest looks for them. Of each, the guest reads objects only. One that is no such directory, that is a
// danger to share, or has no place in the guest is not added, and neither is one that has no commit of the repository's own
// history: whoever made a share name it need not know what is in it. Nothing is added where a guest that has the share can
// change what is borrowed, as an earlier one may have done that.
func (h *Host) withBorrowed(ctx context.Context, shares []virtiofs.Share, home string) []virtiofs.Share {
	for _, b := range BorrowedObjects(shares) {
		if b.Shared || !b.Share.KeepsAlternates(b.Repository) || !virtiofs.IsObjects(b.Directory) {
			continue
		}
		added, err := virtiofs.Share{Source: b.Directory, Target: b.Target, ReadOnly: true, Objects: true}.Admit(h.ShareRules())
		if err != nil || !b.sharesHistory(ctx, added.Source) {
			continue
		}
		if _, err := virtiofs.Arrange(append(slices.Clone(shares), added), home); err != nil {
			continue
		}
		shares = append(shares, added)
	}
	return shares
}

// checkClones finds a clone that would lack objects.
func checkClones(shares []virtiofs.Share) error {
	for _, b := range BorrowedObjects(shares) {
		if b.Share.Clone != "" && !b.Shared {
			return fmt.Errorf("the repository %s has objects in another one, %s, which the guest would lack: git -C %[1]s repack -a -d gets them, and then remove %[1]s/objects/info/alternates", b.Share.Source, b.Directory)
		}
	}
	return nil
}

const (
	// maxHistory bounds how many commits of a repository, the newest first, are looked for among the objects that it borrows.
	maxHistory = "100000"

	// maxRefs bounds how many files of branches and tags are read, and maxPackedRefs, in bytes, the file that has many.
	maxRefs, maxPackedRefs = 10000, 32 << 20
)

// sharesHistory tells whether there is a commit of the repository, which its own branches lead to, in a directory of objects.
// Git reads both without their settings. Whoever does not know a repository cannot name its commits.
func (b Borrowed) sharesHistory(ctx context.Context, objects string) bool {
	top, err := os.MkdirTemp("", "sandbox-objects-") // 0700
	if err != nil {
		return false
	}
	defer os.RemoveAll(top)
	own, other := standIn{dir: filepath.Join(top, "own")}, standIn{dir: filepath.Join(top, "other")}
	if err := own.make([]byte(noHead), nil, filepath.Join(b.Repository, "objects"), ""); err != nil {
		return false
	}
	if err := other.make([]byte(noHead), nil, objects, ""); err != nil {
		return false
	}
	refs, err := refsIn(b.Share.Source, b.Repository)
	if err != nil || len(refs) == 0 {
		return false
	}
	// One that was cut off may have objects of which the history is not whole.
	commits, err := own.git(ctx, refs, "rev-list", "--stdin", "--ignore-missing", "--max-count="+maxHistory)
	if err != nil || len(commits) == 0 {
		return false
	}
	found, err := other.git(ctx, commits, "cat-file", "--batch-check=%(objecttype)")
	return err == nil && slices.Contains(strings.Split(string(found), "\n"), "commit")
}

var objectName = regexp.MustCompile("^(?:[0-9a-f]{40}|[0-9a-f]{64})$")

// refsIn are the objects that the branches and tags of a repository name, one a line, as far as they are in the directory top.
// Git itself would follow links that lead out of it: with those, whoever made the repository could have it name what
// he does not know.
func refsIn(top, repository string) (names []byte, err error) {
	root, err := os.OpenRoot(top)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	within, err := filepath.Rel(top, repository)
	if err != nil {
		return nil, err
	}
	add := func(name string, most int64) {
		f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // it may be a pipe
		if err != nil {
			return
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, most))
		if err != nil {
			return
		}
		for line := range strings.Lines(string(text)) {
			if object, _, _ := strings.Cut(strings.TrimSpace(line), " "); objectName.MatchString(object) {
				names = append(names, object+"\n"...)
			}
		}
	}
	add(filepath.Join(within, "packed-refs"), maxPackedRefs)
	files := 0
	err = fs.WalkDir(root.FS(), filepath.Join(within, "refs"), func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || files > maxRefs:
			return fs.SkipAll
		case !d.IsDir():
			files++
			add(name, unix.PathMax)
		}
		return nil
	})
	return names, err
}
