package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/cache"
	"github.com/sourcery-zone/sandbox/machine/disk"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// cacheOf is the cache that the disk is of, unless it is that of the sandbox itself.
func (v *supervisor) cacheOf(d disk.Disk) (key cache.Key, ok bool) {
	for n := range v.config.Caches {
		if d.Name == fmt.Sprintf(layout.CacheDir, n) {
			return v.config.Cache(n), true
		}
	}
	return key, false
}

// takeCache makes the layers those of the cache that the disk is of, if one was kept, and lists them.
func (v *supervisor) takeCache(ctx context.Context, d disk.Disk, layers disk.Layers) (files []string, err error) {
	key, ok := v.cacheOf(d)
	if !ok || v.config.Template {
		return nil, nil
	}
	err = v.host.Caches().Take(ctx, key, layers)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil: // it is no more than a cache
		v.log.Error("a cache is not used", "err", err)
		v.report(api.Report{Note: fmt.Sprintf("the cache %s is empty, because what was kept of it cannot be used: %v", key.Target, err)})
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
		if key, ok := v.cacheOf(d); ok {
			if err := v.host.Caches().Keep(ctx, key, disk.Layers(v.s.Files().Disk(d.Name))); err != nil {
				v.log.Error("what is in a cache is not kept", "err", err)
			}
		}
	}
}

// guestCaches is what the guest is told of its caches.
func (v *supervisor) guestCaches() []agent.Cache {
	var all []agent.Cache
	for n, target := range v.config.Caches {
		all = append(all, agent.Cache{Serial: fmt.Sprintf(layout.CacheDir, n), Target: target})
	}
	return all
}
