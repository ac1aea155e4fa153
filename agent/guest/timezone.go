//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
)

const (
	localTime = "/etc/localtime" // localtime(5)

	// zoneNote holds the name of the zone that the agent has set: another one
	// is somebody else's choice.
	zoneNote = "/var/lib/sandbox-agent/time-zone"

	// namelessZone is the name of a host's zone that has none.
	namelessZone = "Host"
)

// zoneDirs are where the tz database is, and where programs expect that links
// to it lead; the second is NixOS's.
func zoneDirs() []string { return []string{"/usr/share/zoneinfo", "/etc/zoneinfo"} }

func checkTimeZone(zone agent.TimeZone) error {
	if zone.Name != "" && !fs.ValidPath(zone.Name) || strings.ContainsAny(zone.Name, "\x00\n") {
		return fmt.Errorf("%q is not the name of a time zone", zone.Name)
	}
	return nil
}

// setTimeZone makes the zone that of the root, unless the image or the user
// has chosen one.
func setTimeZone(root string, zone agent.TimeZone) error {
	if len(zone.Data) == 0 {
		return nil
	}
	name := zone.Name
	if name == "" {
		name = namelessZone
	}
	now := zoneOf(root)
	set, _ := os.ReadFile(filepath.Join(root, zoneNote)) // none before the first time
	// UTC is what images have that say nothing about it.
	ours := slices.Contains([]string{"", "UTC", "Etc/UTC", "UCT", "Etc/UCT"}, now)
	if len(set) > 0 {
		ours = now == string(set)
	}
	if !ours {
		return nil
	}
	file, err := zoneFile(root, name, zone.Data)
	if err == nil {
		err = replaceLink(filepath.Join(root, localTime), file)
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(filepath.Join(root, zoneNote)), 0o755)
	}
	if err == nil {
		err = replaceFile(filepath.Join(root, zoneNote), name, 0o644)
	}
	// Debian's own file, which some programs read instead.
	debian := filepath.Join(root, "/etc/timezone")
	if _, statErr := os.Stat(debian); err == nil && statErr == nil {
		err = replaceFile(debian, name+"\n", 0o644)
	}
	if err != nil {
		return fmt.Errorf("cannot set the time zone: %w", err)
	}
	return nil
}

// zoneOf returns the name of the root's zone: "" if it has none, and "?" if it
// has one of its own making.
func zoneOf(root string) string {
	link, err := os.Readlink(filepath.Join(root, localTime))
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if _, name, ok := strings.Cut(link, "/zoneinfo/"); ok {
		return name
	}
	return "?"
}

// zoneFile returns the path in the root of a zone's file, which it makes if
// the root does not know the zone.
func zoneFile(root, name string, data []byte) (string, error) {
	for _, dir := range zoneDirs() {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(filepath.Join(root, path)); err == nil && info.Mode().IsRegular() && name != namelessZone {
			return path, nil
		}
	}
	path := filepath.Join(zoneDirs()[0], name)
	err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755)
	if err == nil {
		err = replaceFile(filepath.Join(root, path), string(data), 0o644)
	}
	return path, err
}

// replaceLink makes path a symbolic link, also if there is something else.
func replaceLink(path, target string) error {
	fresh := path + ".sandbox-agent"
	_ = os.Remove(fresh) // left by a guest that lost its power
	err := os.Symlink(target, fresh)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	return err
}
