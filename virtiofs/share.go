package virtiofs

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// specExample stands in the message of every mistake in a share's specification.
const specExample = "write HOST[:GUEST][:OPTION,…], for example ~/src/app:app:ro"

// Share is a directory of the host that the guest sees, or a single file.
type Share struct {
	// Source is the directory or file on the host: absolute, symbolic links resolved.
	Source string `json:"source"`
	// File says that it is a file, of whose directory the guest sees nothing else. Rules count for one if the
	// specification says rules=safe, because whoever shares a file has named it.
	File bool `json:"file,omitempty"`
	// Target is where the guest mounts it. A relative path is relative to the home of the guest's user.
	Target string `json:"target"`
	// ReadOnly keeps the guest, including its root, from changing anything.
	ReadOnly bool `json:"readOnly,omitempty"`
	// CopyOnWrite keeps what the guest writes on the guest's own disk: the directory stays as it is until the user applies
	// the changes. ReadOnly is set as well, so that whoever serves the directory needs not know of it.
	CopyOnWrite bool `json:"copyOnWrite,omitempty"`
	// Quota is how many bytes the directory may hold after what the guest writes; 0: as many as there is room for.
	Quota int64 `json:"quota,omitempty"`
	// Watch says that programs in the guest are told of what this machine changes in it. It can be set of what the guest
	// may write to.
	Watch bool `json:"watch,omitempty"`
	// Clone is not empty where the guest gets a clone at Target, on its own disk, and the repository read-only beside it:
	// what is checked out there at first, which is CloneHead, a branch or a commit. Admit makes Source the repository.
	// ReadOnly is set as well.
	Clone string `json:"clone,omitempty"`
	// Objects says that it is a directory of Git's objects, of which the guest can read these and nothing else. ReadOnly is set
	// as well.
	Objects bool `json:"objects,omitempty"`
	// Rules are for what the guest may do within it.
	Rules rules.Choice `json:"rules,omitzero"`
	// Directory is what Source was when it was admitted, or zero. Of a file, it is the directory that the file is in.
	Directory hostdir.Identity `json:"directory,omitzero"`
	// AllowDangerous says that it was admitted although it is dangerous.
	AllowDangerous bool `json:"allowDangerous,omitempty"`
}

// CloneHead is what the repository itself has checked out.
const CloneHead = "HEAD"

// String returns the specification that ParseShare reads back.
func (s Share) String() string {
	escape := specEscapes.Replace
	target := escape(s.Target)
	if isOptions(s.Target) {
		target = "./" + target
	}
	spec := escape(s.Source) + ":" + target
	if options := s.Options(); len(options) > 0 {
		spec += ":" + escape(strings.Join(options, ","))
	}
	return spec
}

// specEscapes keep a text in one part of a specification.
var specEscapes = strings.NewReplacer(`\`, `\\`, `:`, `\:`)

// AllowOption is the option, as it is written in a specification, by which no rule counts for a path of a share.
func AllowOption(path string) string { return specEscapes.Replace("allow=" + rules.Literal(path)) }

// ParseShare reads HOST[:GUEST][:OPTION,…]. The options are ro, rw, cow, clone, objects, same-path, watch, quota=SIZE,
// rules=safe, rules=none, and worktree=NAME, allow=PATTERN, refuse=PATTERN and hide=PATTERN, which can be there several times.
//
// HOST is relative to cwd, which must be absolute; a leading "~" is the home of the calling user. GUEST is
// relative to the home of the guest's user and by default the base name of HOST, or, with same-path, its whole path. In
// all parts, "\:" stands for a colon and "\\" for a backslash, and in a pattern "\," for a comma; a guest directory that
// is named like an option is written "./ro".
//
// Symbolic links in HOST are resolved, once and for all. It need not exist; that is for Admit to find out.
func ParseShare(spec, cwd string) (Share, error) {
	s, err := parseShare(spec, cwd)
	if err != nil {
		return Share{}, fmt.Errorf("the share %q is not valid: %w; %s", spec, err, specExample)
	}
	return s, nil
}

func parseShare(spec, cwd string) (Share, error) {
	if !utf8.ValidString(spec) || strings.ContainsRune(spec, 0) {
		return Share{}, errors.New("it is not a text in UTF-8 without NUL")
	}
	fields := splitSpec(spec)
	host := fields[0]
	if host.text == "" {
		return Share{}, errors.New("at character 1, the directory of the host is empty")
	}
	source, err := absolute(host.text, cwd)
	if err != nil {
		return Share{}, err
	}
	share := Share{Source: source}
	if resolved, err := hostdir.Resolve(source); err == nil {
		share.Source = resolved
		info, err := os.Stat(resolved)
		share.File = err == nil && info.Mode().IsRegular()
	}

	rest := fields[1:]
	share.Rules.None = share.File
	if n := len(rest); n > 0 {
		if last := rest[n-1]; n == 2 || isOptions(last.raw) {
			if err := share.setOptions(last); err != nil {
				return Share{}, err
			}
			rest = rest[:n-1]
		}
	}
	if share.File && share.CopyOnWrite {
		return Share{}, errors.New("a file cannot be copy-on-write: share the directory that it is in, or give the guest a copy")
	}
	switch {
	case len(rest) > 1:
		return Share{}, fmt.Errorf("at character %d, there is one part too many (a colon within a path is written \\:)", rest[1].position)
	case len(rest) == 1 && share.Target != "":
		return Share{}, fmt.Errorf("at character %d, a path in the guest is written, and same-path says that it is the host's: leave one of them out", rest[0].position)
	case len(rest) == 1:
		share.Target, err = guestPath(rest[0])
	case share.Target == "":
		share.Target, err = defaultTarget(source) // as the user wrote it
	}
	return share, err
}

// field is a part of a specification between colons.
type field struct {
	text     string // escapes resolved
	raw      string // as written
	position int    // of its first character in the specification, counted from 1
}

func splitSpec(spec string) []field {
	var fields []field
	var text, raw strings.Builder
	start, position, escaped := 1, 0, false
	for _, r := range spec {
		position++
		switch {
		case escaped:
			escaped = false
			if r != ':' && r != '\\' {
				text.WriteByte('\\') // not an escape: the backslash means itself
			}
			text.WriteRune(r)
			raw.WriteRune(r)
		case r == '\\':
			escaped = true
			raw.WriteRune(r)
		case r == ':':
			fields = append(fields, field{text.String(), raw.String(), start})
			text.Reset()
			raw.Reset()
			start = position + 1
		default:
			text.WriteRune(r)
			raw.WriteRune(r)
		}
	}
	if escaped {
		text.WriteByte('\\')
	}
	return append(fields, field{text.String(), raw.String(), start})
}

// absolute expands "~", which shells leave alone after a colon, in quotes and in --share=~/x.
func absolute(name, cwd string) (string, error) {
	if rest, ok := strings.CutPrefix(name, "~"); ok && (rest == "" || rest[0] == '/') {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("at character 1, \"~\" cannot be expanded: %w", err)
		}
		return filepath.Join(home, rest), nil
	}
	if filepath.IsAbs(name) {
		return filepath.Clean(name), nil
	}
	if !filepath.IsAbs(cwd) {
		return "", fmt.Errorf("at character 1, %q is relative, and the current directory %q is not absolute", name, cwd)
	}
	return filepath.Join(cwd, name), nil
}

func guestPath(f field) (string, error) {
	switch name := f.text; {
	case name == "":
		return "", fmt.Errorf("at character %d, the path in the guest is empty", f.position)
	case path.IsAbs(name):
		return path.Clean(name), nil
	case name == "~", strings.HasPrefix(name, "~/"):
		f.text = "./" + strings.TrimPrefix(name[1:], "/")
		return guestPath(f)
	default:
		name = path.Clean(name)
		if name == "." {
			return "", fmt.Errorf("at character %d, the path in the guest is its whole home, which would be hidden: name a directory in it", f.position)
		}
		if name == ".." || strings.HasPrefix(name, "../") {
			return "", fmt.Errorf("at character %d, the path in the guest leaves the guest's home: write it as an absolute path", f.position)
		}
		return name, nil
	}
}

func defaultTarget(source string) (string, error) {
	name := filepath.Base(source)
	if name == string(filepath.Separator) {
		return "", fmt.Errorf("%s has no name of its own for the guest: write where the guest shall see it, as in /:host:ro", source)
	}
	return name, nil
}
