package rules

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// Set is what holds for a share. It does not change, and any number of goroutines can ask it.
type Set struct {
	git     bool // the built-in rules for Git, which are no patterns, count
	above   []string
	allow   []pattern
	allowed []string // the texts of allow
	rules   []rule
	// Patterns are of two kinds: those of built-in rules against writing look at what is above the share as well.
	frozen, patterns patterns
}

// New makes the set of a choice. An error names the pattern that is not valid.
func New(c Choice) (*Set, error) {
	s := &Set{git: !c.None, frozen: patterns{byName: map[string][]ruled{}}, patterns: patterns{byName: map[string][]ruled{}}}
	var ok bool
	if s.above, ok = split(cmp.Or(c.Above, ".")); !ok {
		return nil, fmt.Errorf("%q is no path above a share", c.Above)
	}
	s.allowed = slices.Clone(c.Allow)
	exact := func(text string) string { return text }
	for _, text := range c.Allow {
		p, err := compile(text, exact)
		if err != nil {
			return nil, err
		}
		s.allow = append(s.allow, p)
	}
	own := 0 // the first rule that is none of the built-in ones
	if !c.None {
		s.rules = builtIn()
		own = len(s.rules)
		for _, name := range c.Hooks {
			text := Literal(name)
			s.rules = append(s.rules, rule{Rule: Rule{Name: gitHooks, Patterns: []string{text, text + "/"}, Reason: "hooks of Git on the host lead there"}})
		}
	}
	if len(c.Worktrees) > 0 {
		shared := slices.Clone(ofAllWorktrees)
		for _, name := range c.Worktrees {
			shared = append(shared, "worktrees/"+Literal(name)+"/")
		}
		s.rules = append(s.rules, rule{Rule: Rule{
			Name: "git-worktree", Patterns: []string{"**"}, Except: shared, Reason: "it belongs to another working tree of the repository",
		}})
	}
	for _, text := range c.Refuse {
		s.rules = append(s.rules, rule{Rule: Rule{Name: "refuse=" + text, Patterns: []string{text}, Reason: "you refused it"}})
	}
	for _, text := range c.Hide {
		s.rules = append(s.rules, rule{Rule: Rule{Name: "hide=" + text, Patterns: []string{text}, Reason: "you hid it"}, kind: hidden})
	}
	for i := range s.rules {
		for _, text := range s.rules[i].Patterns {
			p, err := compile(text, foldCase)
			if err != nil {
				return nil, err
			}
			switch {
			case s.rules[i].kind == described:
			case s.rules[i].kind == frozen && i < own:
				s.frozen.add(i, p)
			default:
				s.patterns.add(i, p)
			}
		}
		for _, text := range s.rules[i].Except {
			p, err := compile(text, foldCase)
			if err != nil {
				return nil, err
			}
			s.rules[i].except = append(s.rules[i].except, p)
		}
	}
	return s, nil
}

// ofAllWorktrees is what the working trees of a repository have in common (gitrepository-layout(5)), as far as Git writes it.
// What else there is belongs to the main one, or is the user's.
var ofAllWorktrees = []string{
	"objects/", "refs/", "logs/", "packed-refs", "packed-refs.*", "config", "config.lock", "shallow", "shallow.lock", "gc.*", "info/refs", "info/refs_*", "rr-cache/", "lfs/",
}

// literally escapes what means something in a pattern, and commas, which separate patterns.
var literally = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, `,`, `\,`)

// Literal is the pattern for a path as it is.
func Literal(path string) string { return literally.Replace(path) }

// Hides tells whether there are rules for reading, so that Judge has to be asked about Read at all.
func (s *Set) Hides() bool {
	return slices.ContainsFunc(s.rules, func(r rule) bool { return r.kind == hidden || r.kind == keyed })
}

// Ignore returns patterns of gitignore(5), for a repository that the share is, of what cannot be read whatever it holds. They
// distinguish upper and lower case.
func (s *Set) Ignore() (patterns []string) {
	add := func(not string, texts []string) {
		for _, text := range texts {
			if strings.Contains(text, "\n") {
				continue // there it ends a pattern
			}
			if !strings.HasPrefix(text, "**/") {
				text = "/" + text
			}
			if strings.HasSuffix(text, "/") { // of a directory that is ignored itself, nothing in it can be an exception
				text += "**"
			}
			patterns = append(patterns, not+text)
		}
	}
	for _, r := range s.rules {
		if r.kind == hidden {
			add("", r.Patterns)
			add("!", r.Except)
		}
	}
	if len(patterns) > 0 {
		add("!", s.allowed)
	}
	return patterns
}

// WantsContent tells whether the content of a regular file of that path can decide.
func (s *Set) WantsContent(path string) bool {
	names, ok := split(path)
	if !ok || s.allows(path) {
		return false
	}
	return s.git && isGitConfig(s.whole(names)) ||
		slices.ContainsFunc(s.patterns.find(names), func(h hit) bool { return h.covers && s.rules[h.rule].kind == keyed })
}

// Judge decides about an access. It has no effect, and calls a.Content and a.Old at most once each.
func (s *Set) Judge(a Access) Verdict {
	if len(s.rules) == 0 {
		return Verdict{}
	}
	names, ok := split(a.Path)
	if !ok {
		return Verdict{Refused: true, Rule: "path", Reason: "it is no path in the share"}
	}
	if s.allows(a.Path) {
		return Verdict{}
	}
	if s.git {
		if v := JudgeMode(a); v.Refused {
			return v
		}
		if v := judgeGit(a, s.whole(names)); v.Refused {
			return v
		}
		if v := s.find(&s.frozen, a, s.whole(names)); v.Refused {
			return v
		}
	}
	return s.find(&s.patterns, a, names)
}

// whole is a path of the share with what is above.
func (s *Set) whole(names []string) []string { return slices.Concat(s.above, names) }

// find asks the rules of the patterns.
func (s *Set) find(ps *patterns, a Access, names []string) Verdict {
	for _, h := range ps.find(names) {
		r := &s.rules[h.rule]
		if r.excepts(names) {
			continue
		}
		if reason := r.refuses(a, h.covers); reason != "" {
			return Verdict{Refused: true, Rule: r.Name, Reason: reason}
		}
	}
	return Verdict{}
}

// split returns the names of a path as they are compared, none for the share's own directory.
func split(path string) ([]string, bool) {
	if path == "." {
		return nil, true
	}
	names := strings.Split(path, "/")
	for i, name := range names {
		if name == "" || name == "." || name == ".." || strings.ContainsRune(name, 0) {
			return nil, false
		}
		names[i] = fold(name)
	}
	return names, true
}

func (s *Set) allows(path string) bool {
	if len(s.allow) == 0 || path == "." {
		return false
	}
	names := strings.Split(path, "/")
	return slices.ContainsFunc(s.allow, func(p pattern) bool {
		covers, _ := p.matchAnywhere(names)
		return covers
	})
}

func (r *rule) excepts(names []string) bool {
	return slices.ContainsFunc(r.except, func(p pattern) bool {
		covers, _ := p.matchAnywhere(names)
		return covers
	})
}

// moved is why a directory that has been prepared elsewhere does not get a name that means something.
const moved = "what is in it was decided about under another name"

// refuses returns why the rule refuses the access to what its pattern covers or else leads to, or nothing.
func (r *rule) refuses(a Access, covers bool) string {
	switch {
	case !covers:
		return r.refusesAbove(a)
	case r.kind == keyed:
		return r.refusesKey(a)
	case a.Operation == Read && r.kind != hidden:
		return ""
	}
	return r.Reason
}

// refusesAbove is for a directory in which there can be what the pattern covers.
func (r *rule) refusesAbove(a Access) string {
	switch a.Operation {
	case Make:
		if a.Type&fs.ModeSymlink != 0 || a.Moved && a.Type.IsDir() {
			return moved
		}
	case Remove:
		if a.Type&fs.ModeSymlink != 0 || a.Type.IsDir() && !a.Empty {
			return "what is in it would have another name then"
		}
	}
	return ""
}

// keyMarks are in files with secret keys: PEM of OpenSSL, OpenSSH and OpenPGP, also within JSON, and age.
var keyMarks = [][]byte{[]byte("PRIVATE KEY"), []byte("AGE-SECRET-KEY-")}

func (r *rule) refusesKey(a Access) string {
	if a.Type.Type() != 0 {
		return ""
	}
	holds := func(content func() ([]byte, error)) bool {
		text, err := content()
		return err != nil || slices.ContainsFunc(keyMarks, func(mark []byte) bool { return bytes.Contains(text, mark) })
	}
	switch {
	case a.Content == nil && a.Operation != Make: // what is new is the guest's own
	case a.Content != nil && holds(a.Content):
	case a.Old != nil && holds(a.Old):
	default:
		return ""
	}
	return r.Reason
}

// The rules of JudgeMode.
const (
	RuleDevice = "device"
	RuleSetID  = "set-id"
)

// JudgeMode is for what is dangerous under any name. No option of a share allows it where the guest writes to the host.
func JudgeMode(a Access) Verdict {
	switch {
	case a.Operation != Make && a.Operation != Change:
	case a.Operation == Make && a.Type&fs.ModeDevice != 0:
		return Verdict{Refused: true, Rule: RuleDevice, Reason: "a device of the host can be behind it"}
	case a.Type&fs.ModeSetuid != 0, a.Type&fs.ModeSetgid != 0 && !a.Type.IsDir():
		return Verdict{Refused: true, Rule: RuleSetID, Reason: "other users of the host would run it as you"}
	}
	return Verdict{}
}
