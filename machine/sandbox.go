package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/internal/tree"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Host is the sandboxes of one user on this machine.
type Host struct {
	Dirs   layout.Dirs
	Images *image.Store

	// Supervisor is the program, with its arguments, that Sandbox.Start runs and
	// that must call supervisor.Main. Nil is our own executable; see SuperviseCommand.
	Supervisor []string
}

// OpenHost prepares the directories and opens the image store. There is
// nothing to close.
func OpenHost(dirs layout.Dirs) (*Host, error) {
	if err := dirs.Prepare(); err != nil {
		return nil, err
	}
	images, err := image.OpenStore(dirs.Images())
	if err != nil {
		return nil, err
	}
	return &Host{Dirs: dirs, Images: images}, nil
}

// Image finds the image that a Config names: an installed one by its
// reference, or one that is not installed by its absolute directory.
func (h *Host) Image(ref image.Ref) (*image.Image, error) {
	if ref.Dir != "" {
		return image.Load(ref.Dir)
	}
	return h.Images.Get(ref.String())
}

// Sandbox is one named machine. Its methods read the files anew at each call,
// so a value never goes stale.
type Sandbox struct {
	Name string
	host *Host
}

// Files is where the sandbox keeps what it has on this machine.
func (s *Sandbox) Files() layout.Sandbox { return layout.Sandbox{Dirs: s.host.Dirs, Name: s.Name} }

// Create makes the sandbox that c describes, without starting it. The name is
// taken from then on; a taken name is an error.
func (h *Host) Create(c Config) (*Sandbox, error) {
	return h.create(c, func(draft *Sandbox) error { return draft.keepMergeBases(context.Background(), c) })
}

// create lets more add to the sandbox before it appears.
func (h *Host) create(c Config, more func(draft *Sandbox) error) (*Sandbox, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	if err := h.CheckFree(c.Name); err != nil {
		return nil, err
	}
	s := &Sandbox{Name: c.Name, host: h}
	h.sweep()
	// The sandbox appears in one step, so that nobody ever sees half of one.
	draft := &Sandbox{Name: durable.HiddenName(durable.DraftPrefix, c.Name), host: h}
	if err := os.Mkdir(draft.Files().Dir(), 0o700); err != nil {
		return nil, fmt.Errorf("making the sandbox's directory: %w", err)
	}
	lock, err := draft.Files().Lock()
	if err == nil {
		defer flock.Unlock(lock)
		err = draft.fill(c)
	}
	if err == nil {
		err = more(draft)
	}
	if err == nil {
		err = os.Rename(draft.Files().Dir(), s.Files().Dir())
	}
	if errors.Is(err, os.ErrExist) { // somebody else was faster
		err = errNameTaken(c.Name)
	}
	if err != nil {
		return nil, errors.Join(err, tree.Remove(draft.Files().Dir()))
	}
	return s, nil
}

// CheckFree tells whether a sandbox of that name can be made.
func (h *Host) CheckFree(name string) error {
	if err := layout.CheckName(name); err != nil {
		return err
	}
	if durable.Exists((&Sandbox{Name: name, host: h}).Files().Dir()) {
		return errNameTaken(name)
	}
	return nil
}

func errNameTaken(name string) error {
	return remedy.Add(api.Errorf(api.CodeExist, "a sandbox named %s exists already", name), remedy.UseExisting, name)
}

func (s *Sandbox) fill(c Config) error {
	for _, dir := range []string{layout.HomeDir, layout.KeysDir, layout.LogsDir} {
		if err := os.Mkdir(s.Files().Path(dir), 0o700); err != nil {
			return err
		}
	}
	for _, name := range []string{layout.ClientKey, layout.HostKey} {
		if err := layout.WriteKey(s.Files().Key(name), c.Name); err != nil {
			return err
		}
	}
	if err := durable.WriteJSON(s.Files().Path(layout.StateFile), State{Status: StatusCreated}); err != nil {
		return err
	}
	return durable.WriteJSON(s.Files().Path(layout.ConfigFile), c)
}

// Get returns the sandbox of that name.
func (h *Host) Get(name string) (*Sandbox, error) {
	if err := layout.CheckName(name); err != nil {
		return nil, err
	}
	s := &Sandbox{Name: name, host: h}
	if _, err := os.Stat(s.Files().Dir()); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, remedy.Add(api.Errorf(api.CodeNotExist, "there is no sandbox named %s", name), remedy.List)
		}
		return nil, err
	}
	return s, nil
}

// List returns all sandboxes, in the order of their names, broken ones too.
func (h *Host) List() ([]*Sandbox, error) {
	entries, err := os.ReadDir(h.Dirs.State)
	if err != nil {
		return nil, err
	}
	var all []*Sandbox
	for _, e := range entries {
		if e.IsDir() && layout.CheckName(e.Name()) == nil && !h.isOwnDir(e.Name()) {
			all = append(all, &Sandbox{Name: e.Name(), host: h})
		}
	}
	return all, nil
}

// isOwnDir tells our own roots from sandboxes, should one lie in another.
func (h *Host) isOwnDir(name string) bool {
	path := filepath.Join(h.Dirs.State, name)
	for _, dir := range []string{h.Dirs.Data, h.Dirs.Cache, h.Dirs.Runtime, h.Dirs.Images()} {
		if path == dir || strings.HasPrefix(dir, path+string(filepath.Separator)) {
			return true
		}
	}
	return false
}

// Config is what the sandbox is to be at its next start. Its name is always the
// directory's: a Rename may have been cut short after that.
func (s *Sandbox) Config() (Config, error) {
	var c Config
	err := durable.ReadJSON(s.Files().Path(layout.ConfigFile), &c)
	c.Name = s.Name
	return c, err
}

// State is what became of the sandbox. It does not fail: a sandbox whose files
// cannot be read is StatusBroken, and one whose supervisor is gone without
// having said goodbye is StatusCrashed.
func (s *Sandbox) State() State {
	if _, err := s.Config(); err != nil {
		return State{Status: StatusBroken, Reason: err.Error()}
	}
	var st State
	if err := durable.ReadJSON(s.Files().Path(layout.StateFile), &st); err != nil {
		if s.held() {
			return State{Status: StatusBroken, Reason: fmt.Sprintf("%v; it runs and can be stopped", err)}
		}
		// A start writes it anew.
		return State{Status: StatusCrashed, Reason: err.Error()}
	}
	if st.Live() {
		// The lock alone would do, but commands hold it for a moment too.
		if s.held() && (st.Identity == nil || st.Identity.Alive()) {
			return st
		}
		// It may have ended between the two reads.
		var again State
		if durable.ReadJSON(s.Files().Path(layout.StateFile), &again) == nil && again.Status != st.Status {
			return again
		}
		st.Reason = fmt.Sprintf("its supervisor (process %d) ended without a word while the sandbox was %s", st.Supervisor, st.Status)
		st.Status = StatusCrashed
	}
	return st
}

// Exists tells whether the sandbox has not been removed or renamed.
func (s *Sandbox) Exists() bool {
	_, err := os.Stat(s.Files().Dir())
	return !errors.Is(err, os.ErrNotExist)
}

// held tells whether somebody, normally the supervisor, holds the lock.
func (s *Sandbox) held() bool {
	f, err := os.Open(s.Files().Path(layout.LockFile))
	if err != nil {
		return false // nobody can hold what is not there
	}
	defer f.Close()
	owned, err := flock.Owned(f)
	return err == nil && owned
}

// Remove deletes the sandbox with its home. A running one is an error, unless
// force is set: then it is killed first.
func (s *Sandbox) Remove(ctx context.Context, force bool) error {
	lock, err := s.Files().Lock()
	if errors.Is(err, flock.ErrLocked) && force {
		if err := s.Kill(ctx); err != nil {
			return err
		}
		lock, err = s.Files().Lock()
	}
	switch {
	case errors.Is(err, flock.ErrLocked):
		return remedy.Add(remedy.Add(s.liveError(), remedy.Stop, s.Name), remedy.RemoveNow, s.Name)
	case errors.Is(err, os.ErrNotExist):
		return nil // somebody else has removed it, or it has itself
	case err != nil:
		return err
	}
	defer lock.Close()
	if !force {
		if err := s.checkFetched(ctx); err != nil {
			return remedy.Add(err, remedy.RemoveNow, s.Name)
		}
	}
	s.host.sweep()
	return s.Erase()
}

// liveError is why something cannot be done with a sandbox that runs.
func (s *Sandbox) liveError() error {
	return fmt.Errorf("the sandbox %s is %s", s.Name, s.State().Status)
}

// ImageInUse lists the digests of the images that sandboxes are made from.
func (h *Host) ImageInUse() ([]string, error) {
	all, err := h.List()
	if err != nil {
		return nil, err
	}
	var digests []string
	for _, s := range all {
		c, err := s.Config()
		if err != nil {
			continue // broken: it cannot start, so it needs no image
		}
		if c.Image.Dir == "" { // it is an installed one
			digests = append(digests, c.Image.Digest)
		}
	}
	return digests, nil
}

// Info is what inspect and ls show of a sandbox.
type Info struct {
	Name   string     `json:"name"`
	State  State      `json:"state"`
	Config Config     `json:"config"`
	Dir    string     `json:"dir"`
	Home   string     `json:"home"`
	Disk   *DiskUsage `json:"disk,omitempty"`
}

// Info gathers everything that is known about the sandbox.
func (s *Sandbox) Info() Info {
	c, _ := s.Config() // a broken one shows in State
	return Info{Name: s.Name, State: s.State(), Config: c, Dir: s.Files().Dir(), Home: s.Files().Home(), Disk: s.diskUsage(c)}
}

// Served returns how the share is served to the guest, if that runs.
func (i Info) Served(share virtiofs.Share) (ServedShare, bool) {
	n := slices.IndexFunc(i.State.Shares, func(s ServedShare) bool { return s.Source == share.Source })
	if n < 0 || !i.State.Live() {
		return ServedShare{}, false
	}
	return i.State.Shares[n], true
}

// NewName makes up a name that is easy to say and not taken.
func (h *Host) NewName() string {
	return randomName(func(name string) bool {
		_, err := os.Stat(filepath.Join(h.Dirs.State, name))
		return err == nil
	})
}
