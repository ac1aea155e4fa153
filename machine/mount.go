package machine

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Mount gives the sandbox another share, which is admitted already: at once if it runs, and at each later start. It
// returns the share with its place in the guest, and what the user should know.
func (s *Sandbox) Mount(ctx context.Context, share virtiofs.Share) (mounted api.Mounted, err error) {
	err = s.changeConfig(
		func(c Config) (Config, error) {
			img, err := s.changeableShares(c)
			if err != nil {
				return c, err
			}
			if c, err = s.host.Mounting(c, share, img); err != nil {
				return c, err
			}
			mounted.Share = c.Shares[len(c.Shares)-1]
			if share.CopyOnWrite {
				err = s.BeginWorkspace(ctx, mounted.Share)
			}
			return c, err
		},
		func() (err error) {
			mounted, err = s.api().Mount(ctx, api.MountRequest{Share: share})
			return err
		},
	)
	return mounted, err
}

// Unmount takes the share that the guest has at target from the sandbox: at once if it runs, and at each later start.
// One that is in use in the guest is an error that says by whom, unless force is set. It returns the share: what a guest has
// changed in a copy-on-write one stays on its disk, and is there again when it is mounted in the same place.
func (s *Sandbox) Unmount(ctx context.Context, target string, force bool) (share virtiofs.Share, err error) {
	err = s.changeConfig(
		func(c Config) (Config, error) {
			img, err := s.changeableShares(c)
			if err != nil {
				return c, err
			}
			if c, share, err = c.Unmounting(target, img); err == nil && share.CopyOnWrite {
				err = s.SetWorkspaceAside(share)
			}
			return c, err
		},
		func() error {
			c, err := s.Config()
			if err != nil {
				return err
			}
			img, err := s.host.Image(c.Image)
			if err != nil {
				return err
			}
			if _, share, err = c.Unmounting(target, img); err != nil {
				return err
			}
			return s.api().Unmount(ctx, api.UnmountRequest{Target: target, Force: force})
		},
	)
	return share, err
}

// changeableShares returns the image of a sandbox whose shares can be changed while it does not run.
func (s *Sandbox) changeableShares(c Config) (*image.Image, error) {
	if s.firstState() != "" {
		return nil, remedy.Add(fmt.Errorf("the fork %s begins with the shares that %s had, and can get and lose some once it has started", s.Name, c.ForkOf), remedy.Start, s.Name)
	}
	return s.host.Image(c.Image)
}

// Mounting is the configuration with one share more, if it can have it.
func (h *Host) Mounting(c Config, share virtiofs.Share, img *image.Image) (Config, error) {
	home := img.Manifest.User.Home
	share.Target = guestPath(share.Target, home)
	switch {
	case share.Clone != "":
		return c, fmt.Errorf("the share of %s cannot be mounted: a sandbox has clones from its beginning", share.Source)
	case share.CopyOnWrite && c.DiskMiB == 0:
		return c, remedy.Add(fmt.Errorf("the sandbox %s has no disk, on which it could keep what it writes in a copy-on-write share", c.Name), remedy.StopToResize, c.Name, "disk", FormatMiB(DefaultWorkspaceDiskMiB))
	}
	for _, other := range c.Shares {
		if inner := guestPath(other.Target, home); inner != share.Target && strings.HasPrefix(inner, share.Target+"/") {
			return c, remedy.Add(fmt.Errorf("the share of %s would hide that of %s, which the guest has at %s: unmount that first, and mount it again afterwards", share.Source, other.Source, inner), remedy.Unmount, c.Name)
		}
	}
	c.Shares = append(slices.Clone(c.Shares), share)
	_, err := virtiofs.Arrange(c.Shares, home)
	return c, errors.Join(err, h.checkSocketPath(c), h.checkShares(Config{Name: c.Name, Access: Access{Shares: []virtiofs.Share{share}}}))
}

// Unmounting is the configuration without the share that the guest has at target, and that share with its whole path
// there.
func (c Config) Unmounting(target string, img *image.Image) (Config, virtiofs.Share, error) {
	home := img.Manifest.User.Home
	target = guestPath(target, home)
	at := func(s virtiofs.Share) bool { return guestPath(s.Target, home) == target }
	i := slices.IndexFunc(c.Shares, at)
	switch {
	case target == home:
		return c, virtiofs.Share{}, fmt.Errorf("%s is the guest's home, which it always has", target)
	case i < 0:
		return c, virtiofs.Share{}, remedy.Add(fmt.Errorf("the sandbox %s has no share at %s in the guest", c.Name, target), remedy.ListMounts, c.Name)
	}
	if c.Shares[i].Clone != "" {
		return c, virtiofs.Share{}, fmt.Errorf("what the guest has committed at %s is on the sandbox's disk, and the sandbox has the clone to its end", target)
	}
	for _, other := range c.Shares {
		if inner := guestPath(other.Target, home); strings.HasPrefix(inner, target+"/") {
			return c, virtiofs.Share{}, fmt.Errorf("the share at %s lies within the one at %s: unmount that first", inner, target)
		}
	}
	share := c.Shares[i]
	share.Target = target
	c.Shares = slices.Delete(slices.Clone(c.Shares), i, i+1)
	return c, share, nil
}

// guestPath is a path in the guest, relative to whose home it may be.
func guestPath(target, home string) string {
	if rest, ok := strings.CutPrefix(target, "~/"); ok {
		target = rest
	}
	if !path.IsAbs(target) {
		target = path.Join(home, target)
	}
	return path.Clean(target)
}
