package rules

import "io/fs"

// Operation is what a guest does to a name.
type Operation int

// The operations. A rename is Remove of the old name and Make of the new one. A hard link is Write of the old name, because
// the file can then be written under the other, and Make of the new one.
const (
	// Read opens what is there for its content.
	Read Operation = iota
	// Make gives something a name that it did not have: a new file, directory, symbolic link or special file, what is
	// renamed to it, or a hard link. Whoever puts a whole new file in the place of another asks for this too.
	Make
	// Write changes the content of what is there, or shortens it.
	Write
	// Change changes the mode, owner, times or extended attributes.
	Change
	// Remove takes the name away, also by renaming it.
	Remove
)

// Access is an operation on a name.
type Access struct {
	Operation Operation
	// Path is that of the name in the share, as the host has it: relative, clean, with slashes, and without symbolic links
	// but for its last part. The share's own directory is ".".
	Path string
	// Type has the type bits of what is there, or will be: fs.ModeDir, fs.ModeSymlink and so on; zero is a regular file.
	// Of Read it counts only where [Set.WantsContent].
	// Of Make and Change it also has fs.ModeSetuid and fs.ModeSetgid, where they are to be set.
	Type fs.FileMode
	// Moved says of Make that what gets the name was there before, under another: what it has within it was judged under that.
	Moved bool
	// Empty says of Remove that it is a directory that has nothing in it and ceases to be, as by rmdir(2), so that nothing
	// lives on under another name.
	Empty bool
	// Link is the target of a symbolic link that is made.
	Link string
	// Content returns what a regular file holds, and of one that is larger than MaxContent one byte more than that: of Make
	// the file which gets the name, else that which is there. It is nil where it cannot be known, as for a file that is only now made, or for a hard link, which can be
	// written under its other name. It is called for paths of which [Set.WantsContent] says so. What it returned is what has
	// to be there afterwards: whoever lets such a file get the name makes sure that nobody else has it open or has a link to
	// it, for instance by putting a copy in its place.
	Content func() ([]byte, error)
	// Old returns what the regular file holds that loses its name to what is made. It is nil where there is none, and called
	// as Content is.
	Old func() ([]byte, error)
}

// MaxContent bounds, in bytes, what is looked at of a file of which the content decides. Settings of Git that are larger are
// refused.
const MaxContent = 1 << 20

// Verdict is what is to be done. Its zero value allows.
type Verdict struct {
	// Refused is EACCES for the guest.
	Refused bool
	// Rule names the rule that refused, as `sandbox share rules` lists it.
	Rule string
	// Reason says in a part of a sentence why, for the host's user: "Git executes it on the host".
	Reason string
}

// Choice is what the user decided for a share. The zero value is the built-in set "safe".
//
// A pattern is a path in the share, in which * and ? stand for characters of a name, [a-z] for one of them, and ** for any
// number of names. A backslash takes its meaning from the character that follows. With a slash at its end, it is for a
// directory with all that is in it. Refuse and Hide do not distinguish upper and lower case, Allow does.
type Choice struct {
	// None turns the built-in rules off.
	None bool `json:"none,omitempty"`
	// Allow are patterns of paths for which no rule counts.
	Allow []string `json:"allow,omitempty"`
	// Refuse are further patterns of paths that the guest cannot write, and Hide such that it cannot read either.
	Refuse []string `json:"refuse,omitempty"`
	Hide   []string `json:"hide,omitempty"`
	// Worktrees are names of working trees of a repository that the share is: of what in it is some working tree's own, the
	// guest writes theirs only. None: all, as the main one's are among them.
	Worktrees []string `json:"worktrees,omitempty"`
	// Above is the end of the path of the share's own directory: what it is called, or within which directory of Git it is.
	// Built-in rules against writing are for a share that is .git or .vscode as for such a directory in a share. Those
	// against reading are not, as whoever shares such a directory by its name wants it to be read.
	Above string `json:"-"`
	// Hooks are paths of the share to which hooks of Git on the host lead, by its settings or by symbolic links. What is
	// there, the guest cannot write either, unless None is set. It is found anew whenever the share is served.
	Hooks []string `json:"-"`
}

// Options are those by which a share's specification says the same: "rules=none", "allow=PATTERN" and so on.
func (c Choice) Options() []string {
	var list []string
	if c.None {
		list = append(list, "rules=none")
	}
	for _, patterns := range []struct {
		name string
		of   []string
	}{{"worktree", c.Worktrees}, {"allow", c.Allow}, {"refuse", c.Refuse}, {"hide", c.Hide}} {
		for _, pattern := range patterns.of {
			list = append(list, patterns.name+"="+pattern)
		}
	}
	return list
}

// Widens tells whether the guest may do more by the choice than by the built-in rules alone.
func (c Choice) Widens() bool { return c.None || len(c.Allow) > 0 }
