package virtiofs

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// The guest's directories that a share must not hide. Those in guestSystem are closed with everything below
// them; of those in guestTop only the directory itself is, as in /usr/src/app and /var/www.
var (
	guestSystem = []string{
		"/bin", "/boot", "/dev", "/etc", "/lib", "/lib64", "/nix/store", "/proc", "/run", "/sbin", "/sys",
		"/usr/bin", "/usr/lib", "/usr/lib64", "/usr/libexec", "/usr/sbin",
	}
	guestTop = []string{
		"/", "/home", "/nix", "/root", "/tmp", "/usr", "/usr/local", "/usr/share", "/var", "/var/lib", "/var/log", "/var/tmp",
	}
)

// Arrange returns shares with absolute targets in the order in which to mount them: a share that lies inside
// another's target comes after it. It fails where a target would hide a directory of the guest's system, or
// guestHome, where two shares have one target, and where the directory to mount an inner share on does not
// exist in the outer one, as making it would change the host's files. All complaints are joined.
//
// A read-only share inside a writable one holds against the guest's user but not against the guest's root,
// who can unmount it.
func Arrange(shares []Share, guestHome string) ([]Share, error) {
	if !path.IsAbs(guestHome) {
		return nil, fmt.Errorf("the guest's home %q is not an absolute path: correct it in the image's manifest", guestHome)
	}
	placed, err := placeAll(shares, path.Clean(guestHome))
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(placed, func(a, b Share) int { return cmp.Compare(depth(a.Target), depth(b.Target)) })
	var errs []error
	for i, inner := range placed {
		// The nearest of the shares around inner is the one on which it is mounted.
		for _, outer := range slices.Backward(placed[:i]) {
			if within(inner.Target, outer.Target) {
				errs = append(errs, checkMountPoint(inner, outer))
				break
			}
		}
	}
	return placed, errors.Join(errs...)
}

func placeAll(shares []Share, home string) ([]Share, error) {
	placed := make([]Share, len(shares))
	taken := map[string]string{}
	var errs []error
	for i, s := range shares {
		target := s.Target
		if !path.IsAbs(target) {
			target = path.Join(home, target)
		}
		target = path.Clean(target)
		placed[i] = s
		placed[i].Target = target
		if err := checkTarget(target, home); err != nil {
			errs = append(errs, fmt.Errorf("the share of %s cannot be mounted in the guest at %s: %w", s.Source, s.Target, err))
		}
		if other, ok := taken[target]; ok {
			errs = append(errs, fmt.Errorf("the shares of %s and %s have the same place in the guest, %s: give one of them another, as in %s", other, s.Source, s.Target, Share{Source: s.Source, Target: path.Base(s.Target) + "-2"}))
		}
		taken[target] = s.Source
		taken[placed[i].MountPoint()] = s.Source
	}
	return placed, errors.Join(errs...)
}

func checkTarget(target, home string) error {
	if within(home, target) {
		return errors.New("it would hide the guest's home: choose a directory in it")
	}
	if slices.Contains(guestTop, target) {
		return errors.New("it would hide the guest's own files: choose a directory in it, or one relative to the guest's home")
	}
	for _, dir := range guestSystem {
		if within(target, dir) {
			return fmt.Errorf("it would hide the guest's own files in %s: choose a path relative to the guest's home", dir)
		}
	}
	return nil
}

// checkMountPoint follows no link in the outer share: a guest may have made it.
func checkMountPoint(inner, outer Share) error {
	relative := strings.TrimPrefix(inner.Target, strings.TrimSuffix(outer.Target, "/")+"/")
	point := filepath.Join(outer.Source, filepath.FromSlash(relative))
	where := fmt.Sprintf("the share of %s lies in the guest at %s, inside the share of %s", inner.Source, inner.Target, outer.Source)
	switch {
	case outer.File:
		return fmt.Errorf("%s, which is a file: choose another place", where)
	case inner.File:
		return checkFilePoint(point, where)
	}
	top, err := hostdir.Open(filepath.Clean(outer.Source))
	if err != nil {
		return fmt.Errorf("%s, which cannot be opened: %w", where, err)
	}
	defer top.Close()
	dir, err := top.Beneath(filepath.FromSlash(relative))
	if link, ok := errors.AsType[*hostdir.LinkError](err); ok {
		return fmt.Errorf("%s, where %s is a symbolic link, which a guest may have made: put a directory in its place, or choose another place", where, link.Path)
	}
	if err != nil {
		return fmt.Errorf("%s, where there is no such directory: make it (mkdir -p %s), or choose another place", where, point)
	}
	return dir.Close()
}

// checkFilePoint looks for the file of the outer share on which one is to be mounted.
func checkFilePoint(point, where string) error {
	file, err := hostdir.OpenFile(point)
	if err != nil {
		return fmt.Errorf("%s, where there is no such file: make it (touch %s), or choose another place", where, point)
	}
	return file.Close()
}

// within tells whether name is dir or lies below it. Both must be clean.
func within(name, dir string) bool {
	return name == dir || dir == "/" || strings.HasPrefix(name, dir+"/")
}

func depth(name string) int { return strings.Count(name, "/") }
