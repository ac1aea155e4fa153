package main

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// Version is what programs say about themselves, to the precision that our minimums need. The zero value is lower than
// every real version and stands for "unknown" or "any".
type Version struct{ Major, Minor int }

func (v Version) String() string { return fmt.Sprintf("%d.%d", v.Major, v.Minor) }

// Less tells whether v is older than w.
func (v Version) Less(w Version) bool {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor)) < 0
}

// findVersion takes major and minor number from the first two groups of pattern in text.
func findVersion(pattern *regexp.Regexp, text string) (Version, bool) {
	m := pattern.FindStringSubmatch(text)
	if len(m) < 3 {
		return Version{}, false
	}
	major, err1 := strconv.Atoi(m[1])
	minor, err2 := strconv.Atoi(m[2])
	return Version{major, minor}, err1 == nil && err2 == nil
}
