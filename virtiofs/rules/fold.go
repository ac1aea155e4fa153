package rules

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// fold returns the form by which names are compared: two names that are one to some file system of the host have the same.
// It goes as far as ext4, HFS+ and APFS, which fold case, normalise and ignore code points that cannot be seen, and as NTFS
// and FAT, which ignore dots and spaces at the end and what follows a colon. Of their short names it knows that of .git, as
// Git itself does (core.protectNTFS).
func fold(name string) string {
	name = foldCase(name)
	if stream := strings.IndexByte(name, ':'); stream > 0 {
		name = name[:stream]
	}
	if trimmed := strings.TrimRight(name, ". "); trimmed != "" {
		name = trimmed
	}
	if digits, ok := strings.CutPrefix(name, "git~"); ok && digits != "" && strings.Trim(digits, "0123456789") == "" {
		return ".git"
	}
	return name
}

// foldCase is what fold does to characters.
func foldCase(text string) string {
	ascii := true
	for i := range len(text) {
		ascii = ascii && text[i] < utf8.RuneSelf
	}
	switch {
	case ascii:
		return strings.ToLower(text)
	case !utf8.ValidString(text):
		bytes := []byte(text)
		for i, b := range bytes {
			if 'A' <= b && b <= 'Z' {
				bytes[i] = b + 'a' - 'A'
			}
		}
		return string(bytes)
	}
	visible := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Cf, unicode.Variation_Selector, unicode.Other_Default_Ignorable_Code_Point) {
			return -1
		}
		return r
	}, text)
	return norm.NFKC.String(cases.Fold().String(norm.NFKC.String(visible)))
}
