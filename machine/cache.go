package machine

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/cache"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// cacheMiB is the size of a cache's disk, in MiB. It takes on the host what is written.
const cacheMiB = 20 << 10

// maxCaches is how many caches a sandbox may have: each is a disk, and takes a slot of the machine's.
const maxCaches = 8

// Caches is the store of what guests have cached.
func (h *Host) Caches() cache.Store { return cache.Store{Dir: h.Dirs.Caches()} }

// CacheKey says which cache of the store a directory of the guest is.
func (c Config) CacheKey(target string) cache.Key {
	return cache.Key{Project: c.Project, Target: target}
}

// KeepsCaches tells whether what is in the sandbox's caches at its end is what the next sandbox of its
// project begins with. Forks try something: theirs go with them.
func (c Config) KeepsCaches() bool { return len(c.Caches) > 0 && c.ForkOf == "" }

// cachePath is where in the guest a cache is. A relative path is below the first share, where a project's
// dependencies are, or else the home, and "~" is the home.
func (c Config) cachePath(target, home string) string {
	switch below, ok := strings.CutPrefix(target, "~/"); {
	case ok:
		return path.Join(home, below)
	case path.IsAbs(target):
		return path.Clean(target)
	}
	if shares := c.ProjectShares(); len(shares) > 0 {
		return path.Join(shares[0].Target, target)
	}
	return path.Join(home, target)
}

func (c Config) validateCaches() error {
	if len(c.Caches) > 0 && c.Project == "" {
		return remedy.Add(errors.New("a cache is a project's, and there is none: no directory is shared"), remedy.Set, "share", "the project's directory")
	}
	if len(c.Caches) > maxCaches {
		return fmt.Errorf("%d caches are too many: a sandbox has at most %d", len(c.Caches), maxCaches)
	}
	for i, target := range c.Caches {
		within := func(other string) bool {
			return other == target || strings.HasPrefix(other, strings.TrimSuffix(target, "/")+"/")
		}
		switch {
		case !path.IsAbs(target):
			return fmt.Errorf("%q is no path in the guest", target)
		case target == "/" || slices.Contains(hidden, target):
			return fmt.Errorf("a cache on %s would hide what the guest needs to run", target)
		case slices.ContainsFunc(c.Shares, func(s virtiofs.Share) bool { return within(s.Target) }):
			return fmt.Errorf("a cache on %s would hide a share", target)
		case slices.ContainsFunc(c.Shares, func(s virtiofs.Share) bool { return s.Clone != "" && strings.HasPrefix(target, s.Target+"/") }):
			return fmt.Errorf("the cache %s is in a clone, which the guest makes after its caches are there: share the directory itself, or put the cache elsewhere", target)
		case slices.ContainsFunc(c.Caches[:i], within), slices.ContainsFunc(c.Caches[:i], func(other string) bool { return strings.HasPrefix(target, other+"/") }):
			return fmt.Errorf("the cache %s and another are one within the other: give the outer one only", target)
		}
	}
	return nil
}

// hidden are directories without which no guest runs. What else a cache hides, such as a home, is for the
// one who asks for it to see.
var hidden = []string{"/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/nix", "/proc", "/root", "/run", "/sbin", "/sys", "/tmp", "/usr", "/var"}
