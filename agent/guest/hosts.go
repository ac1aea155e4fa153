//go:build linux

package guest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	hosts = "/etc/hosts" // hosts(5)

	// ownHost begins the line of it that is ours. Debian has that address for
	// the name of a machine that has none of its own.
	ownHost = "127.0.1.1\t"
)

// hostsFile is /etc/hosts for the host name: all that the image and the user
// say in it, and our line.
func hostsFile(old, hostname string) string {
	line := ownHost + hostname + "\n"
	if old == "" {
		return "127.0.0.1\tlocalhost\n" + line + "::1\tlocalhost ip6-localhost ip6-loopback\n"
	}
	lines := slices.Collect(strings.Lines(old))
	if i := ownLine(lines); i >= 0 {
		lines[i] = line
		return strings.Join(lines, "")
	}
	// After what the file begins with, so that the address of localhost keeps
	// its name.
	i := 1 + slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "127.0.0.1") })
	if i > 0 && !strings.HasSuffix(lines[i-1], "\n") {
		lines[i-1] += "\n"
	}
	return strings.Join(slices.Insert(lines, i, line), "")
}

func ownLine(lines []string) int {
	return slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, ownHost) })
}

// keepHosts remembers an /etc/hosts that has our line, which a disk has from an
// earlier boot, and what a user has added to it. restore puts it back over what
// the image's preparation, which knows nothing of it, has made anew.
func keepHosts(root string) (restore func() error) {
	path := filepath.Join(root, hosts)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return func() error { return nil }
	}
	text, err := os.ReadFile(path)
	if err != nil || ownLine(slices.Collect(strings.Lines(string(text)))) < 0 {
		return func() error { return nil }
	}
	return func() error { return replaceFile(path, string(text), 0o644) }
}
