package virtiofs

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// isOptions tells whether a part of a specification can only be a list of options: its first word is one.
func isOptions(part string) bool {
	first, _, _ := strings.Cut(part, ",")
	name, _, hasValue := strings.Cut(first, "=")
	if hasValue {
		return slices.Contains([]string{"rules", "allow", "refuse", "hide"}, name)
	}
	return slices.Contains([]string{"ro", "rw", "cow", "same-path"}, name)
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
		case option == "ro", option == "rw", option == "cow":
			modes = append(modes, option)
		case option == "same-path":
			s.Target = s.Source
		case option == "rules=none":
			s.Rules.None = true
		case option == "rules=safe":
			s.Rules.None = false
		case name == "allow" && value != "":
			s.Rules.Allow = append(s.Rules.Allow, value)
		case name == "refuse" && value != "":
			s.Rules.Refuse = append(s.Rules.Refuse, value)
		case name == "hide" && value != "":
			s.Rules.Hide = append(s.Rules.Hide, value)
		default:
			return fmt.Errorf("at character %d, %q is not an option: there are ro, rw, cow, same-path, rules=safe, rules=none, allow=PATTERN, refuse=PATTERN and hide=PATTERN (a colon within a path is written \\:)", f.position, option)
		}
	}
	if len(modes) > 1 {
		return fmt.Errorf("at character %d, %s exclude each other", f.position, strings.Join(modes, " and "))
	}
	s.CopyOnWrite = slices.Contains(modes, "cow")
	s.ReadOnly = s.CopyOnWrite || slices.Contains(modes, "ro")
	if s.File && s.Rules.None && len(s.Rules.Allow) > 0 {
		return errors.New("no rules count for a single file, unless rules=safe is written, so that there is nothing that allow= could allow: leave it out")
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
	case s.ReadOnly:
		list = append(list, "ro")
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
