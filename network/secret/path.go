package secret

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/network/policy"
)

// canonicalPath returns the one form of all that name the same path, if servers read it alike.
func canonicalPath(text string) (string, error) {
	parts, err := policy.PathSegments(text)
	if err != nil {
		return "", fmt.Errorf("the path %q is not one for secrets: %w", text, err)
	}
	if parts[len(parts)-1] == "" {
		return "", fmt.Errorf("the path %q ends with a slash: what is below it is meant anyway", text)
	}
	return joinPath(parts), nil
}

// joinPath is how a spec writes a path: without characters that mean something there, such as commas.
func joinPath(parts []string) string {
	var b strings.Builder
	for _, part := range parts {
		b.WriteByte('/')
		for _, c := range []byte(part) {
			if letter := c | 0x20; isDigit(c) || 'a' <= letter && letter <= 'z' || strings.IndexByte("-._~", c) >= 0 {
				b.WriteByte(c)
			} else {
				fmt.Fprintf(&b, "%%%02X", c)
			}
		}
	}
	return b.String()
}

func readPaths(paths map[Host][]string) (map[Host][][]string, error) {
	read := map[Host][][]string{}
	for host, texts := range paths {
		for _, text := range texts {
			parts, err := policy.PathSegments(text)
			if err != nil {
				return nil, fmt.Errorf("the path %q: %w", text, err)
			}
			read[host] = append(read[host], parts)
		}
	}
	return read, nil
}

// at are the secrets that a request to the host gets, of which some may be for other paths.
func (h *hostView) at(host Host, r *http.Request) []entry {
	if !slices.ContainsFunc(h.entries, func(e entry) bool { return e.paths[host] != nil }) {
		return h.entries
	}
	asked := askedPaths(r)
	return slices.DeleteFunc(slices.Clone(h.entries), func(e entry) bool { return !e.covers(host, asked) })
}

// askedPaths are those that a server could take for the request's. One that servers read differently has no segments.
func askedPaths(r *http.Request) [][]string {
	texts := []string{r.URL.EscapedPath()}
	for name, values := range r.Header {
		switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) {
		case "x-original-url", "x-rewrite-url":
			for _, value := range values {
				path, _, _ := strings.Cut(value, "?")
				texts = append(texts, path)
			}
		}
	}
	var asked [][]string
	for _, text := range texts {
		parts, err := policy.PathSegments(text)
		if err != nil {
			parts = nil
		}
		asked = append(asked, parts)
	}
	return asked
}

// covers tells whether a secret is for all of these paths of a host.
func (e entry) covers(host Host, asked [][]string) bool {
	below := e.paths[host]
	if below == nil {
		return true
	}
	for _, parts := range asked {
		if !slices.ContainsFunc(below, func(p []string) bool { return len(parts) >= len(p) && slices.Equal(parts[:len(p)], p) }) {
			return false
		}
	}
	return true
}
