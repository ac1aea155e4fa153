package agent

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// Bounds of what a guest tells of a workspace.
const (
	// MaxWorkspaceEntries bounds the names.
	MaxWorkspaceEntries = 1_000_000

	maxWorkspaceBytes = 256 << 20 // all paths and targets together
	maxWorkspacePath  = 4095      // bytes: PATH_MAX of Linux without its NUL
	maxWorkspaceName  = 255       // bytes: NAME_MAX
	maxWorkspaceDepth = 512
)

// WorkspaceEntry is what a guest has in a copy-on-write share in place of what the host has there.
type WorkspaceEntry struct {
	// Path is relative to the share's directory, clean and with slashes. Its bytes need not be text.
	Path string
	// Removed says that the guest has removed what the host has. The rest is zero then.
	Removed bool
	// Mode has the type and the permissions, with set-id bits.
	Mode fs.FileMode
	Size int64  // in bytes, of a regular file
	Link string // the target of a symbolic link
	// Whole says of a directory that it has nothing of the host's of that name; what the guest does not list in it is not
	// there.
	Whole bool
	// Moved says of such a directory that it was the host's under another name. [Workspace.Keep] it before that is
	// removed on the host.
	Moved bool
}

// WorkspaceError is what the guest says why it could not do something, such as that a file is gone. It can be asked for
// something else.
type WorkspaceError struct{ Message string }

func (e *WorkspaceError) Error() string { return "in the sandbox: " + e.Message }

// Workspace is a copy-on-write share of a running guest. Its methods may be called at the same time, and take turns.
//
// Nothing that it tells is to be believed: paths are checked to be paths within the share, and the numbers of entries
// and the lengths of texts are bounded; contents have the length that the guest sends.
type Workspace struct {
	client  *Client
	tag     string
	channel ssh.Channel

	mu     sync.Mutex // held for a request and its answer
	reader *bufio.Reader
	buffer []byte
	broken error
}

// Workspace opens the copy-on-write share with that tag. The caller closes it.
func (c *Client) Workspace(ctx context.Context, tag string) (*Workspace, error) {
	if err := c.Require(ctx, FeatureCopyOnWrite); err != nil {
		return nil, err
	}
	channel, requests, err := c.openChannel(ctx, "session")
	if err != nil {
		return nil, fmt.Errorf("cannot ask the guest about its workspace: %w", err)
	}
	go ssh.DiscardRequests(requests)
	err = within(ctx, func() error {
		accepted, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{wire.SubsystemWorkspace}))
		if err == nil && !accepted {
			err = errors.New("the guest refuses it")
		}
		return wire.NoEOF(err)
	})
	if err != nil {
		go channel.Close()
		return nil, fmt.Errorf("cannot ask the guest about its workspace: %w", c.explain(err))
	}
	return newWorkspace(c, tag, channel), nil
}

func newWorkspace(c *Client, tag string, channel ssh.Channel) *Workspace {
	return &Workspace{client: c, tag: tag, channel: channel, reader: bufio.NewReaderSize(channel, wire.MaxWorkspaceFrame)}
}

// Close ends what is under way.
func (w *Workspace) Close() error { return w.channel.Close() }

// List calls visit for each name that differs, or may differ, from what the host has: a directory before what is in
// it. It ends with visit's first error.
func (w *Workspace) List(ctx context.Context, visit func(WorkspaceEntry) error) error {
	var check entryCheck
	return w.do(ctx, wire.WorkspaceList, "", func(kind byte, payload []byte) error {
		if kind != wire.FrameEntry {
			return errors.New("the guest sends something else than a list")
		}
		var told wire.WorkspaceEntry
		if err := json.Unmarshal(payload, &told); err != nil {
			return fmt.Errorf("the guest's list cannot be understood: %w", err)
		}
		entry, err := check.entry(told)
		if err != nil {
			return err
		}
		return visit(entry)
	})
}

// Read writes the content of a regular file to to.
func (w *Workspace) Read(ctx context.Context, path string, to io.Writer) error {
	return w.do(ctx, wire.WorkspaceRead, path, func(kind byte, payload []byte) error {
		if kind != wire.FrameContent {
			return errors.New("the guest sends something else than a file")
		}
		_, err := to.Write(payload)
		return err
	})
}

// Sum returns what the guest says is the SHA-256 of a regular file's content.
func (w *Workspace) Sum(ctx context.Context, path string) ([32]byte, error) {
	var sum []byte
	err := w.do(ctx, wire.WorkspaceSum, path, func(_ byte, payload []byte) error {
		sum = bytes.Clone(payload)
		return nil
	})
	if err == nil && len(sum) != 32 {
		err = errors.New("the guest's sum has another length")
	}
	if err != nil {
		return [32]byte{}, err
	}
	return [32]byte(sum), nil
}

// Keep makes a directory, which is Moved, independent of what it was on the host.
func (w *Workspace) Keep(ctx context.Context, path string) error {
	return w.do(ctx, wire.WorkspaceKeep, path, nil)
}

// Restore gives the guest what the host has at the path, with all that is in it, and takes away what the host has not.
func (w *Workspace) Restore(ctx context.Context, path string) error {
	return w.do(ctx, wire.WorkspaceRestore, path, nil)
}

// Refresh makes the guest forget what it knows of the host's files, for they are others now. What it has open stays.
func (w *Workspace) Refresh(ctx context.Context) error {
	return w.do(ctx, wire.WorkspaceRefresh, "", nil)
}

// do makes one request. Without heed, its answer has nothing but an end.
func (w *Workspace) do(ctx context.Context, operation, path string, heed func(kind byte, payload []byte) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken != nil {
		return w.broken
	}
	stop := context.AfterFunc(ctx, func() { w.channel.Close() })
	defer stop()
	failed, err := w.roundTrip(wire.WorkspaceRequest{Operation: operation, Tag: w.tag, Path: wire.RawString(path)}, heed)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		w.broken = w.client.explain(err) // what is left of the answer would be taken for another's
		w.channel.Close()
		return w.broken
	}
	return failed
}

// roundTrip returns the guest's own error apart from one after which nothing more can be asked.
func (w *Workspace) roundTrip(request wire.WorkspaceRequest, heed func(kind byte, payload []byte) error) (failed, err error) {
	if err := json.NewEncoder(w.channel).Encode(request); err != nil {
		return nil, wire.NoEOF(err)
	}
	for {
		kind, payload, err := wire.ReadFrame(w.reader, w.buffer)
		w.buffer = payload
		if err != nil {
			return nil, fmt.Errorf("the guest's answer about its workspace: %w", err)
		}
		if kind == wire.FrameEnd {
			var end wire.WorkspaceEnd
			if err := json.Unmarshal(payload, &end); err != nil {
				return nil, fmt.Errorf("the guest's answer about its workspace: %w", err)
			}
			if end.Error != "" {
				return &WorkspaceError{clip(end.Error)}, nil
			}
			return nil, nil
		}
		if heed == nil {
			return nil, errors.New("the guest answers about its workspace what it was not asked")
		}
		if err := heed(kind, payload); err != nil {
			return nil, err
		}
	}
}

// entryCheck makes sure that a list describes a tree, in the order of its walk: so it need not remember all names.
type entryCheck struct {
	count, bytes int
	last         string
	dirs         []string // the listed directories in which the next entry may be, from the outermost on
}

func (c *entryCheck) entry(told wire.WorkspaceEntry) (WorkspaceEntry, error) {
	name := string(told.Path)
	entry := WorkspaceEntry{
		Path: name, Removed: told.Mode == 0, Mode: modeOf(told.Mode), Size: told.Size, Link: string(told.Link),
		Whole: told.Whole, Moved: told.Moved,
	}
	if entry.Removed {
		entry.Mode = 0
	}
	if err := CheckWorkspacePath(name); err != nil {
		return entry, err
	}
	c.count++
	c.bytes += len(name) + len(told.Link)
	for len(c.dirs) > 0 && !strings.HasPrefix(name, c.dirs[len(c.dirs)-1]+"/") {
		c.dirs = c.dirs[:len(c.dirs)-1]
	}
	parent := "."
	if len(c.dirs) > 0 {
		parent = c.dirs[len(c.dirs)-1]
	}
	switch {
	case c.count > MaxWorkspaceEntries || c.bytes > maxWorkspaceBytes:
		return entry, fmt.Errorf("the guest has changed more than %d names, or such as are too long: apply some of them, or discard them in the guest", MaxWorkspaceEntries)
	case comparePaths(c.last, name) >= 0:
		return entry, fmt.Errorf("the guest lists %q twice, or in the wrong place", clip(name))
	case path.Dir(name) != parent:
		return entry, fmt.Errorf("the guest lists %q, and not the directory in which it is", clip(name))
	case told.Size < 0 || len(told.Link) > maxWorkspacePath || strings.ContainsRune(string(told.Link), 0):
		return entry, fmt.Errorf("the guest lists %q with a size or a target that cannot be", clip(name))
	case (told.Whole || told.Moved) && !entry.Mode.IsDir(), told.Moved && !told.Whole, (told.Link != "") != (entry.Mode&fs.ModeSymlink != 0):
		return entry, fmt.Errorf("the guest lists %q as what it cannot be", clip(name))
	}
	c.last = name
	if entry.Mode.IsDir() {
		c.dirs = append(c.dirs, name)
	}
	return entry, nil
}

// comparePaths orders paths as a walk meets them that takes the names of each directory in the order of their bytes.
func comparePaths(a, b string) int {
	for {
		partA, restA, moreA := strings.Cut(a, "/")
		partB, restB, moreB := strings.Cut(b, "/")
		if c := strings.Compare(partA, partB); c != 0 || !moreA || !moreB {
			return cmp.Or(c, compareBool(moreA, moreB))
		}
		a, b = restA, restB
	}
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// CheckWorkspacePath tells whether a name of a guest's is a path of something within a share: relative, clean, and not
// the share's directory itself.
func CheckWorkspacePath(name string) error {
	ok := name != "" && len(name) <= maxWorkspacePath && !strings.ContainsRune(name, 0) && strings.Count(name, "/") < maxWorkspaceDepth
	if ok {
		for part := range strings.SplitSeq(name, "/") {
			ok = ok && part != "" && part != "." && part != ".." && len(part) <= maxWorkspaceName
		}
	}
	if !ok {
		return fmt.Errorf("the guest lists %q, which is no path within the share", clip(name))
	}
	return nil
}

// modeOf translates st_mode of Linux. The guest's numbers are the same on all its processors.
func modeOf(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	switch mode & 0o170000 {
	case 0o040000:
		m |= fs.ModeDir
	case 0o120000:
		m |= fs.ModeSymlink
	case 0o010000:
		m |= fs.ModeNamedPipe
	case 0o140000:
		m |= fs.ModeSocket
	case 0o020000:
		m |= fs.ModeDevice | fs.ModeCharDevice
	case 0o060000:
		m |= fs.ModeDevice
	case 0o100000:
	default:
		m |= fs.ModeIrregular
	}
	for bit, is := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= is
		}
	}
	return m
}
