package virtiofs

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// minQuota is less than anybody wants.
const minQuota = 1 << 20

// formatSize writes bytes so that they are read back exactly.
func formatSize(n int64) string {
	for _, unit := range []struct {
		size int64
		name string
	}{{1 << 30, "G"}, {1 << 20, "M"}} {
		if n%unit.size == 0 {
			return fmt.Sprintf("%d%s", n/unit.size, unit.name)
		}
	}
	return strconv.FormatInt(n, 10)
}

// isOptions tells whether a part of a specification can only be a list of options: its first word is one.
func isOptions(part string) bool {
	first, _, _ := strings.Cut(part, ",")
	name, _, hasValue := strings.Cut(first, "=")
	if hasValue {
		return slices.Contains([]string{"quota", "rules", "worktree", "allow", "refuse", "hide"}, name)
	}
	return slices.Contains([]string{"ro", "rw", "cow", "clone", "objects", "same-path", "watch"}, name)
}

// splitOptions splits at commas, but not at those of a pattern, before which there is a backslash that stays.
func splitOptions(text string) (options []string) {
	begin, escaped := 0, false
	for i := range len(text) {
		switch {
		case escaped:
			escaped = false
		case text[i] == '\\':
			escaped = true
		case text[i] == ',':
			options = append(options, text[begin:i])
			begin = i + 1
		}
	}
	return append(options, text[begin:])
}

// setOptions reads a list of options. The target is set by same-path only.
func (s *Share) setOptions(f field) error {
	var modes []string
	for _, option := range splitOptions(f.text) {
		name, value, _ := strings.Cut(option, "=")
		switch {
		case option == "ro", option == "rw", option == "cow", option == "clone", option == "objects":
			modes = append(modes, option)
		case option == "same-path":
			s.Target = s.Source
		case option == "watch":
			s.Watch = true
		case name == "quota":
			var err error
			if s.Quota, err = units.RAMInBytes(value); err != nil || s.Quota < minQuota {
				return fmt.Errorf("at character %d, %q must be a size of 1M at least, such as quota=5G", f.position, option)
			}
		case option == "rules=none":
			s.Rules.None = true
		case option == "rules=safe":
			s.Rules.None = false
		case name == "worktree" && value != "":
			s.Rules.Worktrees = append(s.Rules.Worktrees, value)
		case name == "allow" && value != "":
			s.Rules.Allow = append(s.Rules.Allow, value)
		case name == "refuse" && value != "":
			s.Rules.Refuse = append(s.Rules.Refuse, value)
		case name == "hide" && value != "":
			s.Rules.Hide = append(s.Rules.Hide, value)
		default:
			return fmt.Errorf("at character %d, %q is not an option: there are ro, rw, cow, clone, objects, same-path, watch, quota=SIZE, rules=safe, rules=none, worktree=NAME, allow=PATTERN, refuse=PATTERN and hide=PATTERN (a colon within a path is written \\:)", f.position, option)
		}
	}
	if len(modes) > 1 {
		return fmt.Errorf("at character %d, %s exclude each other", f.position, strings.Join(modes, " and "))
	}
	s.CopyOnWrite = slices.Contains(modes, "cow")
	if slices.Contains(modes, "clone") {
		s.Clone = CloneHead
		if s.File {
			return errors.New("a clone is one of a repository: share its directory")
		}
		if len(s.Rules.Options()) > 0 {
			return errors.New("what a guest has as a clone is its own, and has no rules: leave out either clone or the rules")
		}
	}
	if s.Objects = slices.Contains(modes, "objects"); s.Objects && (s.File || len(s.Rules.Options()) > 0) {
		return errors.New("objects is for a directory of Git's objects, of which nothing else can be read: leave out either it or the rules")
	}
	s.ReadOnly = s.CopyOnWrite || s.Clone != "" || s.Objects || slices.Contains(modes, "ro")
	if s.File && s.Rules.None && len(s.Rules.Allow) > 0 {
		return errors.New("no rules count for a single file, unless rules=safe is written, so that there is nothing that allow= could allow: leave it out")
	}
	switch {
	case s.Quota != 0 && s.ReadOnly:
		return errors.New("the guest writes nothing to the directory of a share that is ro, cow, clone or objects: leave out quota=")
	case s.Quota != 0 && s.File:
		return errors.New("a quota is for directories: leave it out")
	case s.Watch && s.ReadOnly:
		return errors.New("the guest's kernel can tell its programs of changes only where they may write, and not in a share that is ro, cow, clone or objects: leave out one of the two, and have them look again and again instead")
	}
	if s.Rules.None && len(s.Rules.Allow) > 0 {
		return errors.New("with rules=none there is nothing that allow= could allow: leave one of them out")
	}
	_, err := rules.New(s.Rules)
	return err
}

// Options are those of the specification, as ParseShare reads them back.
func (s Share) Options() []string {
	var list []string
	switch {
	case s.CopyOnWrite:
		list = append(list, "cow")
	case s.Clone != "":
		list = append(list, "clone")
	case s.Objects:
		list = append(list, "objects")
	case s.ReadOnly:
		list = append(list, "ro")
	}
	if s.Watch {
		list = append(list, "watch")
	}
	if s.Quota != 0 {
		list = append(list, "quota="+formatSize(s.Quota))
	}
	choice := s.Rules
	switch {
	case s.File && choice.None:
		choice.None = false // as a file is shared if nothing is written
	case s.File:
		list = append(list, "rules=safe")
	}
	return append(list, choice.Options()...)
}
