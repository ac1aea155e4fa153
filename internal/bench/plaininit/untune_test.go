//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestUntuneRemovesMasksAndDropInsOnly(t *testing.T) {
	root := t.TempDir()
	link := func(name, target string) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
	}
	gone := []string{
		"etc/systemd/system/ssh.service", "etc/systemd/system-generators/systemd-sysv-generator",
		"etc/systemd/journald.conf.d/sandbox.conf", "etc/systemd/system/x.service.d/sandbox.conf",
	}
	kept := []string{
		"etc/systemd/system/default.target", "etc/systemd/system/multi-user.target.wants/ssh.service",
		"etc/default/null", "etc/sudoers.d/sandbox",
	}
	link(gone[0], os.DevNull)
	link(gone[1], os.DevNull)
	link(gone[2], "anything")
	link(gone[3], "anything")
	link(kept[0], "/usr/lib/systemd/system/multi-user.target")
	link(kept[1], "/usr/lib/systemd/system/ssh.service")
	link(kept[2], os.DevNull)
	link(kept[3], "anything")
	link(filepath.Dir(busLink)+"/other.service", "../other.service")
	if err := untune(root); err != nil {
		t.Fatal(err)
	}
	for _, name := range gone {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range append(kept, busLink) {
		if _, err := os.Lstat(filepath.Join(root, name)); err != nil {
			t.Errorf("%s is missing: %v", name, err)
		}
	}
}

func TestUntuneRefusesImageWithoutMasks(t *testing.T) {
	if untune(t.TempDir()) == nil {
		t.Error("an image in which nothing is masked must not be compared with itself")
	}
}
