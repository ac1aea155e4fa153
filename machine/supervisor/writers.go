package supervisor

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// noteOtherWriters tells the user of each share that another guest writes to, too.
func (v *supervisor) noteOtherWriters() {
	for _, note := range v.otherWriters(v.config.Shares) {
		v.report(api.Report{Note: note})
	}
}

// otherWriters are notes of the shares that another guest writes to, too. Locks end
// at the guest: virtiofsd keeps none, and what one guest has cached of a file the
// other one does not know.
func (v *supervisor) otherWriters(shares []virtiofs.Share) (notes []string) {
	all, err := v.host.List()
	if err != nil {
		v.log.Warn("it is not known who else writes to the shares", "err", err)
		return nil
	}
	for _, other := range all {
		if other.Name == v.s.Name || !other.State().Live() {
			continue
		}
		c, err := other.Config()
		if err != nil {
			continue // it will not be a fault of this one
		}
		for _, dir := range sharedForWriting(shares, c.Shares) {
			notes = append(notes, fmt.Sprintf("%s is shared for writing with the running sandbox %s, too. The two see nothing of each other's locks: git, SQLite and others lose data when both write at the same time. Share it with :ro in one of them, or give each a copy", dir, other.Name))
		}
	}
	return notes
}

// sharedForWriting returns the directories among the shares a that two guests
// may write to: b has the same, one above or one below.
func sharedForWriting(a, b []virtiofs.Share) []string {
	var dirs []string
	for _, one := range a {
		for _, two := range b {
			if !one.ReadOnly && !two.ReadOnly && overlap(one, two) {
				dirs = append(dirs, one.Source)
				break
			}
		}
	}
	return dirs
}

func overlap(a, b virtiofs.Share) bool {
	return a.Directory == b.Directory && !a.Directory.IsZero() || below(a.Source, b.Source) || below(b.Source, a.Source)
}

// below tells whether path is dir or lies in it; both are absolute and clean.
func below(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}
