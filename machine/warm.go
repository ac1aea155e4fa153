package machine

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qemu"
)

// A template is the snapshot of a machine that was booted from an image and
// belongs to nobody: no home and no share is mounted in it. A sandbox for which
// one fits begins with it in place of booting, and then becomes itself, as a
// fork does.

// templatesDir, in the cache, has a directory for each template, whose name is
// the digest of all that it depends on.
const templatesDir = "templates"

// templateLife is how long a template is kept that nobody uses.
const templateLife = 30 * 24 * time.Hour

// Template is a saved machine with which sandboxes can start.
type Template struct {
	dir      string
	host     *Host
	hardware Hardware
	shares   int
}

// Template returns the template for sandboxes with the hardware of the plan and
// that number of shares, and whether it is there; Make makes it. A QEMU that could
// not save it is an error here already, before a machine is booted for it.
func (h *Host) Template(plan *Plan, shares int) (t Template, exists bool, err error) {
	if err := snapshot.CheckQEMU(plan.QEMU.Version); err != nil {
		return t, false, err
	}
	if len(plan.Hardware.Caches) > 0 {
		return t, false, errors.New("a guest mounts caches when it boots")
	}
	key, err := plan.TemplateKey(shares)
	if err != nil {
		return t, false, err
	}
	t = Template{filepath.Join(h.Dirs.Cache, templatesDir, key), h, plan.Hardware, shares}
	_, err = os.Stat(t.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return t, false, err
	}
	return t, err == nil, nil
}

// TemplateKey is the digest of everything on which a template for such a sandbox,
// with that number of shares, depends: the image, QEMU as it is installed, the machine as it is
// built with all devices, the processor, and our own forms.
func (p *Plan) TemplateKey(shares int) (string, error) {
	needs, err := p.Needs()
	if err != nil {
		return "", err
	}
	needs.Shares = nil // which directories they are does not matter, only how many
	vm := p.VM
	vm.Name, vm.Shares, vm.Ports = "", nil, ShareSlots(shares)
	vm.MonitorFD, vm.AgentFD, vm.ConsoleFD = 3, 4, 5 // any numbers: the sockets are parts of the machine
	if p.Transport == agent.TransportVsock {
		vm.AgentFD = 0
	}
	if !p.Hardware.NoHome {
		vm.Shares = append(vm.Shares, qemu.Share{Tag: HomeTag, Socket: HomeTag})
	}
	for _, place := range SharePlaces(shares) {
		vm.Shares = append(vm.Shares, qemu.Share{Tag: place.Tag, Socket: place.Tag, Port: place.Port})
	}
	vm.NIC = p.Hardware.NIC("", 6)
	args, err := vm.Args(p.QEMU)
	if err != nil {
		return "", err
	}
	binary, err := os.Stat(p.QEMU.Binary)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal([]any{
		needs, args, p.QEMU.Version, binary.Size(), binary.ModTime().UnixNano(), p.Virtiofsd.Version,
		snapshot.Version, agent.ProtocolVersion,
	})
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:12]), nil
}

// Make boots a machine for the template, which shows as a sandbox for as long
// as that takes, saves it when its system is up, and removes what nobody can
// use any more. It has c's time to become ready, and no more than c may run where
// the walls are weak. o.Note may be called.
func (t Template) Make(ctx context.Context, c Config, o StartOptions) (err error) {
	c = Config{
		Name: "template-" + strings.ToLower(rand.Text()[:8]), Created: time.Now().UTC(), Hardware: t.hardware,
		Access:   Access{AllowWeak: c.AllowWeak},
		Life:     Life{ReadyTimeout: c.ReadyTimeout, Remove: true},
		Template: true, TemplateShares: t.shares,
	}
	s, err := t.host.Create(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Remove(context.WithoutCancel(ctx), true)) }()
	o.Hold, o.Until = true, StageSystem
	hold, err := s.Start(ctx, o)
	if err != nil {
		return err
	}
	defer hold.Close()
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	const tag = "template"
	snap, err := s.SaveSnapshot(ctx, tag, SaveOptions{})
	if err != nil {
		return err
	}
	return t.publish(ctx, s, snap)
}

// warmUp runs a command, so that what every first command reads from the disk
// is in the memory that is saved.
func (s *Sandbox) warmUp(ctx context.Context) error {
	client, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	cmd := client.Command(ctx, "true")
	cmd.Login = true
	return cmd.Run()
}

// publish takes the snapshot of s as the template, in one step.
func (t Template) publish(ctx context.Context, s *Sandbox, snap snapshot.Manifest) error {
	root := filepath.Dir(t.dir)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	t.host.SweepTemplates()
	draft := filepath.Join(root, durable.HiddenName(durable.DraftPrefix, filepath.Base(t.dir)))
	err := snapshot.Link(ctx, s.Files().Snapshot(snap.Tag), draft, snap)
	if err == nil {
		err = durable.MoveDir(draft, t.dir)
	}
	if errors.Is(err, os.ErrExist) { // somebody else was faster
		return os.RemoveAll(draft)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keeping the template: %w", err), os.RemoveAll(draft))
	}
	return nil
}

// SweepTemplates removes what interrupted makers left, and templates whose
// image is gone or which were not used for long.
func (h *Host) SweepTemplates() {
	root := filepath.Join(h.Dirs.Cache, templatesDir)
	entries, _ := os.ReadDir(root) // no directory, no templates
	for _, e := range entries {
		info, err := e.Info()
		dir := filepath.Join(root, e.Name())
		if err != nil {
			continue // somebody else is at it
		}
		age := time.Since(info.ModTime())
		if strings.HasPrefix(e.Name(), ".") {
			if age > youngest {
				_ = os.RemoveAll(dir) // tried again another time
			}
			continue
		}
		snap, err := snapshot.Read(dir)
		if err == nil && age < templateLife {
			_, err = h.Image(snap.Needs.Image)
			if err == nil {
				continue
			}
		}
		_ = durable.RemoveDir(dir)
	}
}

// StartWarm is Start for a new sandbox, which begins with the template. Should
// that fail, the template is removed and the sandbox boots, after o.Note was
// told why.
func (s *Sandbox) StartWarm(ctx context.Context, t Template, o StartOptions) (*Hold, error) {
	now := time.Now()
	_ = os.Chtimes(t.dir, now, now) // for SweepTemplates
	warm := o
	warm.restore = t.dir
	var hold *Hold
	err := t.check(ctx)
	if err == nil {
		hold, err = s.Start(ctx, warm)
	}
	if err == nil || ctx.Err() != nil {
		return hold, err
	}
	if o.Note != nil {
		o.Note(fmt.Sprintf("the sandbox boots, because it could not begin with the saved state of its image: %v", err))
	}
	if err := durable.RemoveDir(t.dir); err != nil {
		return nil, err
	}
	return s.Start(ctx, o)
}

// check finds a template that is not what was saved, as it could be after a
// guest had taken over a QEMU that had it open. What every guest begins with
// would then be that guest's. The state of the devices is small enough to be
// read for that. To read all memory would take as long as all else that a warm
// start does; but no QEMU can write to it, nor hide that somebody has.
func (t Template) check(ctx context.Context) error {
	snap, err := snapshot.Read(t.dir)
	if err != nil {
		return err
	}
	for name, file := range snap.Files() {
		if err := file.Unwritten(filepath.Join(t.dir, name)); err != nil {
			return err
		}
	}
	sum, err := snapshot.Checksum(ctx, filepath.Join(t.dir, snapshot.DevicesFile))
	if err == nil && sum != snap.Devices.Checksum {
		err = fmt.Errorf("%s is not what was saved", filepath.Join(t.dir, snapshot.DevicesFile))
	}
	return err
}
