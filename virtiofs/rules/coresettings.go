package rules

// HooksPath returns what settings of Git set core.hooksPath to, or nothing. It does not follow what they include.
func HooksPath(settings []byte) string {
	all, err := parseSettings(settings)
	if err != nil {
		return ""
	}
	var path string
	for _, s := range all {
		if s.section == "core" && !s.quoted && s.key == "hookspath" {
			path = s.value // the last one counts
		}
	}
	return path
}
