package qemu

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestDiskIsThinAndPrivate(t *testing.T) {
	img, err := FindImg(realQEMU(t, HostArch()).Binary)
	if err != nil {
		t.Skip(err) // names the package to install
	}
	path := filepath.Join(t.TempDir(), "a, b: disk.qcow2")
	if err := os.WriteFile(path+".new", make([]byte, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := CreateDisk(context.Background(), img, path, 20<<10); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(img, "info", "--output=json", path).Output()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Format  string
		Virtual int64 `json:"virtual-size"`
		Actual  int64 `json:"actual-size"`
	}
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if got.Format != "qcow2" || got.Virtual != 20<<30 || got.Actual > 1<<20 {
		t.Errorf("the new disk is %+v, want an empty qcow2 of 20 GiB", got)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the disk's mode is %v (%v), want 0600", info.Mode(), err)
	}
	if _, err := os.Stat(path + ".new"); !os.IsNotExist(err) {
		t.Errorf("an unfinished disk is left: %v", err)
	}
}

func TestDiskGrowsAndNeverShrinks(t *testing.T) {
	img, err := FindImg(realQEMU(t, HostArch()).Binary)
	if err != nil {
		t.Skip(err) // names the package to install
	}
	dir := t.TempDir()
	lower, upper := filepath.Join(dir, "0.qcow2"), filepath.Join(dir, "1.qcow2")
	if err := CreateDisk(context.Background(), img, lower, 64); err != nil {
		t.Fatal(err)
	}
	if err := CreateLayer(context.Background(), img, upper, filepath.Base(lower)); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{128, 128} {
		if err := GrowDisk(context.Background(), img, upper, size); err != nil {
			t.Fatal(err)
		}
	}
	if err := GrowDisk(context.Background(), img, upper, 127); err == nil {
		t.Error("it shrank")
	}
	for path, want := range map[string]string{lower: `"virtual-size": 67108864`, upper: `"virtual-size": 134217728`} {
		if out, err := exec.Command(img, "info", "--output=json", path).Output(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%s has not %s: %v\n%s", path, want, err, out)
		}
	}
}

func TestDiskThatCannotBeMadeLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.qcow2")
	img := fakeBinary(t, `echo half >"$5"; echo 'no space left' >&2; exit 1`)
	err := CreateDisk(context.Background(), img, path, 64)
	if err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), path) {
		t.Errorf("error %v, want qemu-img's words and the path", err)
	}
	if left, _ := filepath.Glob(path + "*"); left != nil {
		t.Errorf("left behind: %q", left)
	}
}

func TestImgIsLookedForBesideQEMU(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	binary := filepath.Join(dir, "bin", "qemu-system-x86_64")
	if _, err := FindImg(binary); err == nil || !strings.Contains(err.Error(), "qemu-utils") {
		t.Errorf("without qemu-img: %v, want the package to install", err)
	}
	for _, place := range []string{filepath.Join(dir, "qemu-img"), filepath.Join(dir, "bin", "qemu-img")} {
		if err := os.MkdirAll(filepath.Dir(place), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(place, []byte("#!/bin/sh\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		if got, err := FindImg(binary); err != nil || got != place {
			t.Errorf("found %q, %v; want %q", got, err, place)
		}
	}
}
