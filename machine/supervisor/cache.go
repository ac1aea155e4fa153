package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/disk"
)

// takeCache makes the layers those of the cache that the disk is of, if one was kept, and lists them.
func (v *supervisor) takeCache(ctx context.Context, d disk.Disk, layers disk.Layers) (files []string, err error) {
	if d.Cache == "" {
		return nil, nil
	}
	err = v.host.Caches().Take(ctx, v.config.CacheKey(d.Cache), layers)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil: // it is no more than a cache
		v.log.Error("a cache is not used", "err", err)
		v.report(api.Report{Note: fmt.Sprintf("the cache %s is empty, because what was kept of it cannot be used: %v", d.Cache, err)})
		return nil, nil
	}
	return layers.All()
}

// keepCaches makes what is in the sandbox's caches what later ones begin with. QEMU has ended, and the guest has
// written what it had to write.
func (v *supervisor) keepCaches(ctx context.Context) {
	if !v.config.KeepsCaches() {
		return
	}
	for _, d := range v.config.Disks() {
		if d.Cache == "" {
			continue
		}
		if err := v.host.Caches().Keep(ctx, v.config.CacheKey(d.Cache), disk.Layers(v.s.Files().Disk(d.Name))); err != nil {
			v.log.Error("what is in a cache is not kept", "err", err)
		}
	}
}

// guestCaches is what the guest is told of its caches.
func (v *supervisor) guestCaches() []agent.Cache {
	var all []agent.Cache
	for _, d := range v.config.Disks() {
		if d.Cache != "" {
			all = append(all, agent.Cache{Serial: d.Name, Target: d.Cache})
		}
	}
	return all
}
