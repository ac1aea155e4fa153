package rules

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode/utf8"
)

// pattern is one that is ready to be compared with paths.
type pattern struct {
	deep  bool // it began with **, and parts may be anywhere in the path
	parts []part
}

// part is for one name, or for any number of names.
type part struct {
	text       string
	literal    bool   // no character stands for others
	head, tail string // what a name must begin and end with, by which most are told apart at once
	any        bool   // **
}

// maxParts is how many the set of states in match holds.
const maxParts = 60

// compile reads a pattern, to which folding is what will be done to the names that it is compared with.
func compile(text string, folding func(string) string) (pattern, error) {
	p, err := parse(text, folding)
	if err != nil {
		return pattern{}, fmt.Errorf("the pattern %q is not valid: %w", text, err)
	}
	return p, nil
}

func parse(text string, folding func(string) string) (pattern, error) {
	switch {
	case text == "":
		return pattern{}, errors.New("it is empty")
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return pattern{}, errors.New("it is not a text in UTF-8 without NUL")
	case strings.HasPrefix(text, "/"):
		return pattern{}, errors.New("it begins with a slash, but is for paths in the share")
	}
	if strings.HasSuffix(text, "/") {
		text += "**"
	}
	var p pattern
	for name := range strings.SplitSeq(text, "/") {
		switch name {
		case "", ".", "..":
			return pattern{}, fmt.Errorf("a part of it is %q", name)
		case "**":
			if n := len(p.parts); n == 0 || !p.parts[n-1].any {
				p.parts = append(p.parts, part{any: true})
			}
			continue
		}
		if strings.Contains(name, "**") {
			return pattern{}, errors.New("** is for any number of names, and stands between slashes")
		}
		if _, err := path.Match(name, ""); err != nil {
			return pattern{}, fmt.Errorf("%q has a [ without ], or ends with a backslash", name)
		}
		folded := folding(name)
		if _, err := path.Match(folded, ""); err != nil {
			return pattern{}, fmt.Errorf("%q is not a pattern without upper case", name)
		}
		p.parts = append(p.parts, newPart(folded))
	}
	if len(p.parts) > maxParts {
		return pattern{}, fmt.Errorf("it has more than %d parts", maxParts)
	}
	if p.deep = p.parts[0].any && len(p.parts) > 1; p.deep {
		p.parts = p.parts[1:]
	}
	return p, nil
}

// match compares the pattern, from its first part on, with all of the names. It tells whether it covers them, and else
// whether it leads beyond them: something that it covers can be within a directory of that path.
func (p pattern) match(names []string) (covers, leads bool) {
	end := len(p.parts)
	states := p.skip(1) // bit i: the next name is for parts[i]
	for _, name := range names {
		var next uint64
		for i := range end {
			switch {
			case states&(1<<i) == 0:
			case p.parts[i].any:
				next |= 1 << i
			case p.parts[i].is(name):
				next |= 1 << (i + 1)
			}
		}
		if next == 0 {
			return false, false
		}
		states = p.skip(next)
	}
	return states&(1<<end) != 0, true
}

// skip adds the states after each ** that is to be next, because it can be for no name.
func (p pattern) skip(states uint64) uint64 {
	for i, part := range p.parts {
		if part.any && states&(1<<i) != 0 {
			states |= 1 << (i + 1)
		}
	}
	return states
}

func newPart(text string) part {
	const special = `*?[]\`
	first := strings.IndexAny(text, special)
	if first < 0 {
		return part{text: text, literal: true}
	}
	p := part{text: text, head: text[:first]}
	if last := strings.LastIndexAny(text, special); text[last] == '*' {
		p.tail = text[last+1:]
	}
	return p
}

func (p part) is(name string) bool {
	switch {
	case p.literal:
		return p.text == name
	case !strings.HasPrefix(name, p.head) || !strings.HasSuffix(name, p.tail):
		return false
	}
	matched, _ := path.Match(p.text, name) // compile has seen to it that there is no error
	return matched
}

// matchAnywhere is match for all that a pattern is for, at any depth if it is deep.
func (p pattern) matchAnywhere(names []string) (covers, leads bool) {
	if !p.deep {
		return p.match(names)
	}
	for i := range names {
		c, l := p.match(names[i:])
		covers, leads = covers || c, leads || l
	}
	return covers, leads
}

// patterns are many, and quick to compare with a path.
type patterns struct {
	byName map[string][]ruled // deep ones, by their first part where that is literal
	ofLast []ruled            // deep ones of one part, which is for the last name
	others []ruled
}

// ruled is the pattern of a rule.
type ruled struct {
	pattern
	rule int
}

func (ps *patterns) add(rule int, p pattern) {
	switch first := p.parts[0]; {
	case p.deep && first.literal:
		ps.byName[first.text] = append(ps.byName[first.text], ruled{p, rule})
	case p.deep && len(p.parts) == 1:
		ps.ofLast = append(ps.ofLast, ruled{p, rule})
	default:
		ps.others = append(ps.others, ruled{p, rule})
	}
}

// hit is a rule that has to do with a path.
type hit struct {
	rule   int
	covers bool // the path, and otherwise something that can be within it
}

// find returns the rules that have to do with a path, each once and in their order.
func (ps *patterns) find(names []string) []hit {
	var hits []hit
	found := func(rule int, covers, leads bool) {
		if covers || leads {
			hits = append(hits, hit{rule, covers})
		}
	}
	for i, name := range names {
		for _, p := range ps.byName[name] {
			covers, leads := p.match(names[i:])
			found(p.rule, covers, leads)
		}
	}
	if n := len(names); n > 0 {
		for _, p := range ps.ofLast {
			found(p.rule, p.parts[0].is(names[n-1]), false)
		}
	}
	for _, p := range ps.others {
		covers, leads := p.matchAnywhere(names)
		found(p.rule, covers, leads)
	}
	slices.SortFunc(hits, func(a, b hit) int { return a.rule - b.rule })
	merged := hits[:0]
	for _, h := range hits {
		if n := len(merged); n > 0 && merged[n-1].rule == h.rule {
			merged[n-1].covers = merged[n-1].covers || h.covers
			continue
		}
		merged = append(merged, h)
	}
	return merged
}
