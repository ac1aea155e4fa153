package rootfs

import (
	"path"
	"slices"
	"strings"
)

// Filter are patterns of paths, relative to the root and each part of them as
// path.Match has it. A pattern stands for what it matches and for all that is in
// it, and one that ends in a slash only for the latter.
type Filter []string

// Covers reports whether one of the patterns stands for the path.
func (f Filter) Covers(name string) bool {
	return slices.ContainsFunc(f, func(pattern string) bool { return covers(pattern, name) })
}

func covers(pattern, name string) bool {
	pattern, inside := strings.CutSuffix(pattern, "/")
	parts, depth := strings.Split(name, "/"), strings.Count(pattern, "/")+1
	if len(parts) < depth || (inside && len(parts) == depth) {
		return false
	}
	matched, err := path.Match(pattern, strings.Join(parts[:depth], "/"))
	return matched && err == nil
}
