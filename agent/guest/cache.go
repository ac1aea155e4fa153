//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"golang.org/x/sys/unix"
)

const (
	// cachesDir is where the disks of caches are mounted, out of reach once the root is another.
	cachesDir = "/caches"

	// cacheData is the directory of such a disk that is the cache: beside it is lost+found.
	cacheData = "data"
)

// mountCaches mounts the caches under root, in which home and shares are mounted already.
func mountCaches(ctx context.Context, root string, user boot.User, caches []agent.Cache, logger *slog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, deviceTimeout)
	defer cancel()
	for _, c := range caches {
		d, err := openDisk(ctx, c.Serial, filepath.Join(cachesDir, c.Serial), logger)
		if err == nil {
			err = d.mount()
		}
		if err == nil {
			err = d.bindCache(root, c.Target, user)
		}
		if err != nil {
			return fmt.Errorf("cannot mount the cache %s: %w", c.Target, err)
		}
	}
	return nil
}

// bindCache gives what is on the disk its place under root. A new one is the user's.
func (d *disk) bindCache(root, target string, user boot.User) error {
	data := filepath.Join(d.at, cacheData)
	err := os.Mkdir(data, 0o755)
	if err == nil {
		err = os.Lchown(data, user.UID, user.GID)
	}
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return unwrapPath(err)
	}
	point, err := directoryPoint(root, target, user)
	if err != nil {
		return fmt.Errorf("there is no directory to mount it on, and none can be made: %w", err)
	}
	defer point.Close()
	// A bind mount takes its flags only in a second call (mount(2)), and no descriptor leads to what is mounted on it. So
	// the directory is mounted on itself first: what is then mounted of it has its flags.
	if err := mountAll([]mount{
		{data, data, "", unix.MS_BIND, ""},
		{"", data, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV, ""},
	}); err != nil {
		return err
	}
	if err := unix.Mount(data, descriptorPath(point), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting its directory: %w", err)
	}
	return nil
}
