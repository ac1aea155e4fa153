package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxPath bounds the path of a request that a rule judges, in bytes.
const maxPath = 8 << 10

// lookalikes are characters that some systems take for one of those that separate a path (NFKC, and the "best fit" of
// Windows).
const lookalikes = "\u037e\u2024\u2025\u2026\u2044\u2100\u2101\u2105\u2106\u2215\u29f5\u29f8\ufe52\ufe54\ufe68\ufe6a\uff05\uff0e\uff0f\uff1b\uff1f\uff3c"

// PathSegments returns what is between the slashes of a request's path, decoded. The error says why servers may read a path
// differently, which then has none.
func PathSegments(escaped string) ([]string, error) {
	parts, _, problem := segments(escaped)
	if problem != "" {
		return nil, errors.New(problem)
	}
	return parts, nil
}

// segments returns what is between the slashes of a path, decoded. A path that one server reads differently from another
// one has none, but a problem, and where it is.
func segments(escaped string) (parts []string, at int, problem string) {
	if !strings.HasPrefix(escaped, "/") {
		return nil, 0, "a path begins with a slash"
	}
	if len(escaped) > maxPath {
		return nil, maxPath, fmt.Sprintf("a path has at most %d characters", maxPath)
	}
	at = 1
	rest := strings.Split(escaped[1:], "/")
	for i, raw := range rest {
		part, bad, problem := segment(raw)
		if problem != "" {
			return nil, at + bad, problem
		}
		if part == "" && i < len(rest)-1 {
			return nil, at, "there is nothing between two slashes, which some servers take for one"
		}
		if part != "" && strings.Trim(part, ". ") == "" {
			return nil, at, "it leads up, or nowhere"
		}
		parts = append(parts, part)
		at += len(raw) + 1
	}
	return parts, 0, ""
}

// segment decodes one of them.
func segment(raw string) (part string, at int, problem string) {
	var decoded []byte
	for i := 0; i < len(raw); i++ {
		c, start := raw[i], i
		if c == '%' {
			b, err := hex.DecodeString(raw[i+1 : min(i+3, len(raw))])
			if err != nil || len(b) != 1 {
				return "", i, "a percent sign stands before two hexadecimal digits"
			}
			c = b[0]
			i += 2
		} else if c >= 0x80 {
			return "", i, "what is not in ASCII is written as %XX"
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "", start, "a control character has no place in a path"
		case strings.IndexByte(`/\;%?#`, c) >= 0:
			return "", start, fmt.Sprintf("%q is read differently by different servers", raw[start:i+1])
		}
		decoded = append(decoded, c)
	}
	if !utf8.Valid(decoded) {
		return "", 0, "it is not in UTF-8"
	}
	part = string(decoded)
	if strings.ContainsAny(part, lookalikes) {
		return "", 0, "some servers take a character in it for another one"
	}
	return part, 0, ""
}

// anySegments stands in a pattern for any number of segments, and anyText within one for any text.
const (
	anySegments = "**"
	anyText     = '*'
)

// matchPath tells whether the segments of a path are those of a pattern.
func matchPath(pattern, path []string) bool {
	return wildcard(len(pattern), len(path), func(i int) bool { return pattern[i] == anySegments }, func(i, j int) bool { return matchSegment(pattern[i], path[j]) })
}

func matchSegment(pattern, part string) bool {
	if part == "" {
		return pattern == ""
	}
	return wildcard(len(pattern), len(part), func(i int) bool { return pattern[i] == anyText }, func(i, j int) bool { return pattern[i] == part[j] })
}

// wildcard compares a pattern of so many elements with a text. It goes back to the last element only that stands for
// any number of others, so that no pattern takes longer than the product of both lengths.
func wildcard(pattern, text int, anything func(i int) bool, equal func(i, j int) bool) bool {
	i, j, star, resume := 0, 0, -1, 0
	for j < text {
		switch {
		case i < pattern && anything(i):
			star, resume = i, j
			i++
		case i < pattern && equal(i, j):
			i++
			j++
		case star >= 0:
			resume++
			i, j = star+1, resume
		default:
			return false
		}
	}
	for i < pattern && anything(i) {
		i++
	}
	return i == pattern
}
