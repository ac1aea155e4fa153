//go:build linux

package server

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// defaultLocale is what every guest has: glibc has it built in, and musl has
// no other.
const defaultLocale = "C.UTF-8"

// knownLocales replaces what the settings of somebody else's machine say about
// the locale, and this root file system does not have: programs would fall
// back to ASCII, and complain.
func knownLocales(root string, settings []string) []string {
	var known []string
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		switch {
		case name != "LANG" && !strings.HasPrefix(name, "LC_"), value == "", hasLocale(root, value):
			known = append(known, setting)
		case name == "LANG":
			known = append(known, name+"="+defaultLocale)
		}
	}
	return known
}

// hasLocale reports whether the C library of a root file system knows a
// locale, by setlocale(3)'s rules for its name.
func hasLocale(root, name string) bool {
	name = normalLocale(name)
	switch {
	case name == "C" || name == "POSIX" || name == normalLocale(defaultLocale):
		return true
	case strings.Contains(name, "/"):
		return false
	}
	const compiled = "/usr/lib/locale"
	if _, err := os.Stat(filepath.Join(root, compiled, name)); err == nil {
		return true
	}
	for _, archive := range []string{compiled, "/run/current-system/sw/lib/locale"} {
		if archiveHasLocale(filepath.Join(root, archive, "locale-archive"), name) {
			return true
		}
	}
	return false
}

// normalLocale writes the character set in a locale's name as glibc does in the
// names of files: en_US.UTF-8 is en_US.utf8.
func normalLocale(name string) string {
	base, rest, found := strings.Cut(name, ".")
	if !found {
		return name
	}
	charset, modifier, found := strings.Cut(rest, "@")
	charset = strings.Map(func(r rune) rune {
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return -1
		}
		return unicode.ToLower(r)
	}, charset)
	if found {
		charset += "@" + modifier
	}
	return base + "." + charset
}

// archiveHasLocale looks into a file of localedef(1), by glibc's locarchive.h:
// a header, whose third and fifth words tell where the table of names is and
// how many entries it has. These are hash, place of the name and place of the
// locale, which is 0 for an entry that is not used.
func archiveHasLocale(path, name string) bool {
	const (
		magic     = 0xde020109
		entrySize = 12
		maxName   = 256
	)
	file, err := os.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	var head [5]uint32
	if binary.Read(file, binary.NativeEndian, &head) != nil || head[0] != magic {
		return false
	}
	table := make([]uint32, entrySize/4*min(head[4], 1<<20))
	if binary.Read(io.NewSectionReader(file, int64(head[2]), int64(4*len(table))), binary.NativeEndian, table) != nil {
		return false
	}
	for ; len(table) > 0; table = table[entrySize/4:] {
		if table[2] == 0 {
			continue
		}
		text := make([]byte, maxName)
		n, _ := file.ReadAt(text, int64(table[1]))
		if end := bytes.IndexByte(text[:n], 0); end >= 0 && string(text[:end]) == name {
			return true
		}
	}
	return false
}
