package image

import (
	"path/filepath"
	"strings"
)

// Ref names an image: an installed one by its name, or by name and digest, and one
// that is not installed by its directory. As text it is NAME, NAME@DIGEST or the
// directory; so it is in JSON, too.
type Ref struct {
	Name   string
	Digest string // or its first digits; empty is the newest image of that name
	Dir    string // absolute; then the others are empty
}

// ParseRef reads a reference. Each text is one; whether there is such an image,
// Store.Get tells.
func ParseRef(text string) Ref {
	if filepath.IsAbs(text) {
		return Ref{Dir: text}
	}
	name, digest, _ := strings.Cut(text, "@")
	return Ref{Name: name, Digest: digest}
}

// IsDirectory tells whether a text that a user has typed names an image by its
// directory, as ./result does, which need not be absolute.
func IsDirectory(text string) bool {
	return strings.ContainsRune(text, filepath.Separator) || text == "." || text == ".."
}

func (r Ref) String() string {
	switch {
	case r.Dir != "":
		return r.Dir
	case r.Digest == "":
		return r.Name
	}
	return r.Name + "@" + r.Digest
}

// MarshalText implements encoding.TextMarshaler.
func (r Ref) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *Ref) UnmarshalText(text []byte) error {
	*r = ParseRef(string(text))
	return nil
}
