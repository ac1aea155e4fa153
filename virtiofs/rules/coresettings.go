package rules

// HooksPath returns what settings of Git set core.hooksPath to, or nothing. It does not follow what they include.
func HooksPath(settings []byte) string { return core(settings, "hookspath") }

// WorkingTree returns what settings of Git set core.worktree to, or nothing, in the same way.
func WorkingTree(settings []byte) string { return core(settings, "worktree") }

func core(settings []byte, key string) (value string) {
	all, err := parseSettings(settings)
	if err != nil {
		return ""
	}
	for _, s := range all {
		if s.section == "core" && !s.quoted && s.key == key {
			value = s.value // the last one counts
		}
	}
	return value
}
