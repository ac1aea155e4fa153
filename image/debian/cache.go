package debian

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// cachedRoot is a finished root file system in the cache: the slow half of an
// image, which many images share.
type cachedRoot struct {
	dir     string
	content content
}

// findRoot finds the root file system of those inputs, or returns nil.
func findRoot(cacheDir, digest string) (*cachedRoot, error) {
	dir := rootfsDir(cacheDir, digest)
	data, err := os.ReadFile(filepath.Join(dir, contentFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the cached root file system: %w", err)
	}
	r := &cachedRoot{dir: dir}
	if err := json.Unmarshal(data, &r.content); err != nil {
		return nil, fmt.Errorf("the cached root file system %s is damaged; remove that directory: %w", dir, err)
	}
	return r, nil
}

func rootfsDir(cacheDir, digest string) string {
	return filepath.Join(cacheDir, rootfsParent, digest[:min(16, len(digest))])
}

// makeRootfs installs the packages and puts the result into the cache.
func makeRootfs(ctx context.Context, b bootstrap, in inputs, cacheDir string) (*cachedRoot, error) {
	epoch := time.Unix(in.Epoch, 0).UTC()
	if in.Epoch == 0 {
		var err error
		if epoch, err = b.date(ctx, in); err != nil {
			return nil, err
		}
	}
	final := rootfsDir(cacheDir, in.digest())
	tmp, err := os.MkdirTemp(filepath.Dir(final), newPrefix)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp) // nothing is left of it after the rename
	var made content
	err = b.install(ctx, in, epoch, func(r io.Reader) error {
		made, err = unpack(r, tmp, in, epoch)
		return err
	})
	if err != nil {
		return nil, err
	}
	// Written last: a directory without it is no root file system.
	data, err := json.MarshalIndent(made, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(tmp, contentFile), append(data, '\n'), 0o644); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(final); err != nil {
		return nil, fmt.Errorf("replacing the cached root file system: %w", err)
	}
	if err := os.Rename(tmp, final); err != nil {
		return nil, err
	}
	return &cachedRoot{dir: final, content: made}, nil
}

// Prune removes the cached root file systems, except those made from the inputs
// whose digests are in keep, and what interrupted builds left. It returns the
// names of what it removed.
func Prune(cacheDir string, keep []string) ([]string, error) {
	if _, err := os.Stat(cacheDir); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	unlock, err := Options{CacheDir: cacheDir}.lockCache()
	if err != nil {
		return nil, err
	}
	defer unlock()
	kept := map[string]bool{}
	for _, digest := range keep {
		kept[rootfsDir(cacheDir, digest)] = true
	}
	dirs, err := os.ReadDir(filepath.Join(cacheDir, rootfsParent))
	if err != nil {
		return nil, err
	}
	var removed []string
	for _, d := range dirs {
		dir := filepath.Join(cacheDir, rootfsParent, d.Name())
		if kept[dir] {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			return removed, fmt.Errorf("removing a cached root file system: %w", err)
		}
		removed = append(removed, d.Name())
	}
	return removed, nil
}
