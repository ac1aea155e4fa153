//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// tuned are the patterns of what the image's recipe lays over the packages to
// make them start faster: links to /dev/null, which mask what systemd would
// find elsewhere, and drop-ins of one name.
var (
	masked = []string{
		"etc/systemd/system/*", "etc/systemd/system-generators/*", "etc/tmpfiles.d/*",
	}
	dropIns = []string{
		"etc/systemd/*.conf.d/sandbox.conf", "etc/systemd/system/*.d/sandbox.conf",
		"etc/modprobe.d/sandbox.conf", "etc/tmpfiles.d/sandbox.conf",
	}
)

// busLink starts the message bus with the system, as its package has it.
const busLink = "usr/lib/systemd/system/multi-user.target.wants/dbus.service"

// untune makes the root what the packages themselves made it.
func untune(root string) error {
	undone := 0
	for _, pattern := range masked {
		for _, path := range glob(root, pattern) {
			if target, err := os.Readlink(path); err != nil || target != os.DevNull {
				continue
			}
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("unmasking: %w", err)
			}
			undone++
		}
	}
	for _, pattern := range dropIns {
		for _, path := range glob(root, pattern) {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("undoing the image's settings: %w", err)
			}
		}
	}
	if undone == 0 {
		return errors.New("nothing in this image is masked, so there is nothing to compare it with")
	}
	err := os.Symlink("../dbus.service", filepath.Join(root, busLink))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("starting the message bus: %w", err)
	}
	return nil
}

func glob(root, pattern string) []string {
	found, _ := filepath.Glob(filepath.Join(root, pattern)) // the patterns above are valid
	return found
}
