package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// Guest is the guest's side of a share: an *agent.Workspace.
type Guest interface {
	List(ctx context.Context, visit func(agent.WorkspaceEntry) error) error
	Read(ctx context.Context, path string, to io.Writer) error
	Sum(ctx context.Context, path string) ([32]byte, error)
	Keep(ctx context.Context, path string) error
	Restore(ctx context.Context, path string) error
	Refresh(ctx context.Context) error
}

// Share is a copy-on-write share of a running sandbox.
type Share struct {
	Guest Guest
	// Host is the directory that is shared. It stays the caller's.
	Host *hostdir.Dir
	// Judge says what the rules of the share refuse; nil allows all.
	Judge func(rules.Access) rules.Verdict
	// Base returns what a file had in it when the guest began with it, which can be an earlier state of what both sides
	// have; nil: nobody knows of any.
	Base func(ctx context.Context, path string) ([]byte, error)
	// Record is what is known from earlier. It changes with what is applied and discarded; the caller keeps it then.
	Record *Record
	// Mounted are paths at which the guest has other shares: their mount points are none of its changes.
	Mounted map[string]bool

	moved []string // directories that the guest has renamed, as of the last Changes
}

// Kind is what a guest did to a name.
type Kind string

// The kinds. Where a directory takes the place of something else, or the other way round, that is removed and the new
// added.
const (
	Added    Kind = "added"
	Modified Kind = "modified"
	Removed  Kind = "removed"
)

// Side is what one side has at a path; zero is nothing.
type Side struct {
	Mode fs.FileMode // type and permissions
	Size int64       // in bytes, of a regular file
	Link string      // the target of a symbolic link
}

// Change is a name that the guest has otherwise than the host.
type Change struct {
	Path     string // relative to the share, with slashes; any bytes but NUL
	Kind     Kind
	Old, New Side
	// ModeOnly says that a file is modified in its permissions alone.
	ModeOnly bool
	// Conflict says why applying it would take something from the host that the guest may not have seen; empty: nothing.
	Conflict string

	host     *node // what was there when it was compared; nil: nothing
	replaced bool  // what is removed makes room for something else
}

// MarshalJSON writes what programs need of a change.
func (c Change) MarshalJSON() ([]byte, error) {
	form := struct {
		Path       string `json:"path"`
		PathBase64 []byte `json:"pathBase64,omitempty"`
		Kind       Kind   `json:"kind"`
		Type       string `json:"type"`
		Mode       string `json:"mode,omitempty"`
		OldMode    string `json:"oldMode,omitempty"`
		Size       int64  `json:"size"`
		OldSize    int64  `json:"oldSize"`
		Target     string `json:"target,omitempty"`
		Conflict   string `json:"conflict,omitempty"`
	}{Path: c.Path, Kind: c.Kind, Type: c.Type(), Size: c.New.Size, OldSize: c.Old.Size, Target: c.New.Link, Conflict: c.Conflict}
	if !utf8.ValidString(c.Path) {
		form.PathBase64 = []byte(c.Path)
	}
	if c.Kind != Removed {
		form.Mode = fmt.Sprintf("%04o", c.New.Mode.Perm())
	}
	if c.Kind != Added {
		form.OldMode = fmt.Sprintf("%04o", c.Old.Mode.Perm())
	}
	return json.Marshal(form)
}

// Type is the word for what the path is, or was if it is removed.
func (c Change) Type() string {
	side := c.New
	if c.Kind == Removed {
		side = c.Old
	}
	switch side.Mode.Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "link"
	case fs.ModeNamedPipe:
		return "pipe"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}

// Within tells whether the change is at one of the paths or below; no paths stand for all.
func (c Change) Within(paths []string) bool {
	for _, p := range paths {
		if p = path.Clean(p); p == "." || c.Path == p || strings.HasPrefix(c.Path, p+"/") {
			return true
		}
	}
	return len(paths) == 0
}

// Name is a path as text of one line: quoted as in Go if anything in it would not be shown as it is.
func Name(path string) string {
	if !utf8.ValidString(path) || strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) || r == '"' }) {
		return strconv.Quote(path)
	}
	return path
}

// RefusedError says that a change does not come to the host, whatever the user wants.
type RefusedError struct {
	Path string
	Rule string // of the share's rules; empty where it is not one of them
	Why  string // to follow "it "
}

func (e *RefusedError) Error() string {
	if e.Rule != "" {
		return fmt.Sprintf("%s is refused by the rule %s of the share: %s", Name(e.Path), e.Rule, e.Why)
	}
	return fmt.Sprintf("%s is not applied: it %s", Name(e.Path), e.Why)
}

// ConflictError says that the host's side has changed.
type ConflictError struct{ Path, Why string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s is left as it is: %s", Name(e.Path), e.Why)
}

// errMeanwhile is why a deed was undone.
var errMeanwhile = errors.New("it has changed on this machine in this moment: look at the difference again")

// Record is what is kept of a share from one command to the next.
type Record struct {
	// Since is when the guest began to keep its own changes. What has changed on the host later, it may not have seen.
	Since time.Time `json:"since"`
	// Settled has, by digests of their paths, changes that were applied or discarded.
	Settled map[string]Settled `json:"settled,omitempty"`
}

// Settled is a path about which the two sides were of one mind.
type Settled struct {
	Guest string `json:"guest"`         // what the guest had: see signature
	Inode uint64 `json:"ino,omitempty"` // of the host's; zero: nothing
	Ctime int64  `json:"ctime,omitempty"`
}
