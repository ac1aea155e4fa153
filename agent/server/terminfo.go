//go:build linux

package server

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// knownTerm returns the name of a kind of terminal, if one of the directories
// of terminfo(5) has its description, or else of one that has and can do about
// the same. Images have few descriptions, and new terminals bring their own to
// the host only. Without any descriptions nothing can be better than the name.
func knownTerm(name string, dirs []string) string {
	substitutes := []string{name}
	if strings.HasPrefix(name, "screen") || strings.HasPrefix(name, "tmux") {
		substitutes = append(substitutes, "screen-256color", "screen")
	}
	for _, term := range append(substitutes, "xterm-256color", "xterm", "vt100") {
		if hasTerm(term, dirs) {
			return term
		}
	}
	return name
}

func hasTerm(name string, dirs []string) bool {
	if name == "" || strings.ContainsAny(name, "/\x00") {
		return false
	}
	for _, dir := range dirs {
		// By the first letter, or, where file systems take a and A for the
		// same, by its number.
		for _, letter := range []string{name[:1], fmt.Sprintf("%02x", name[0])} {
			if _, err := os.Stat(filepath.Join(dir, letter, name)); err == nil {
				return true
			}
		}
	}
	return false
}

// terminfoDirs are the directories in which programs of the user look.
func terminfoDirs(user User, env []string) []string {
	dirs := []string{filepath.Join(user.Home, ".terminfo")}
	for _, list := range []string{getenv(env, "TERMINFO"), getenv(env, "TERMINFO_DIRS")} {
		for _, dir := range filepath.SplitList(list) {
			if filepath.IsAbs(dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	return append(dirs,
		"/etc/terminfo", "/lib/terminfo", "/usr/share/terminfo", "/usr/lib/terminfo",
		"/run/current-system/sw/share/terminfo")
}
