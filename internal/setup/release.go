package main

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Release is the part of os-release(5) that decides where packages come from.
type Release struct {
	ID        string   // "debian", "ubuntu", …; lower case
	Like      []string // the distributions that it is derived from
	VersionID string   // "12", "24.04"; empty on Debian testing and unstable
	Codename  string   // "bookworm"; the name of the suite in the archive
	Name      string   // for people: "Debian GNU/Linux 12 (bookworm)"
}

// ParseRelease reads the format of os-release(5). Unknown keys and lines that are no assignment are skipped, as the
// format demands.
func ParseRelease(r io.Reader) (Release, error) {
	var release Release
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(lines.Text()), "=")
		if !ok || strings.HasPrefix(key, "#") {
			continue
		}
		value = unquote(value)
		switch key {
		case "ID":
			release.ID = value
		case "ID_LIKE":
			release.Like = strings.Fields(value)
		case "VERSION_ID":
			release.VersionID = value
		case "VERSION_CODENAME":
			release.Codename = value
		case "PRETTY_NAME":
			release.Name = value
		}
	}
	if err := lines.Err(); err != nil {
		return Release{}, fmt.Errorf("read os-release: %w", err)
	}
	if release.ID == "" {
		release.ID = "linux" // the format's own default
	}
	if release.Name == "" {
		release.Name = strings.TrimSpace(release.ID + " " + release.VersionID)
	}
	return release, nil
}

// major is the part of the version before the first dot, or 0 where there is none.
func (r Release) major() int {
	number, _, _ := strings.Cut(r.VersionID, ".")
	major, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return major
}

// unquote removes the shell quoting that os-release allows: one pair of quotes around the whole value, and backslashes
// inside of double quotes.
func unquote(value string) string {
	if len(value) < 2 || (value[0] != '"' && value[0] != '\'') || value[len(value)-1] != value[0] {
		return value
	}
	inner := value[1 : len(value)-1]
	if value[0] == '\'' {
		return inner
	}
	return strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\$`, `$`, "\\`", "`").Replace(inner)
}
