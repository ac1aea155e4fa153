package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// versionTimeout bounds how long a program may take to say its version: they take milliseconds, a minute of load aside.
const versionTimeout = 20 * time.Second

// Inventory is what was found, by need.
type Inventory map[NeedID]Found

// observe looks for every need on this machine. Programs are asked for their versions all at once, because QEMU alone
// takes a noticeable part of the time in which a run with nothing to do should be over.
func observe(ctx context.Context, needs []Need) Inventory {
	found := make([]Found, len(needs))
	var group sync.WaitGroup
	for i, need := range needs {
		group.Go(func() { found[i] = look(ctx, need) })
	}
	group.Wait()
	inventory := Inventory{}
	for i, need := range needs {
		inventory[need.ID] = found[i]
	}
	return inventory
}

// look finds one need. Of several copies of its first program, the first that satisfies the need wins, and otherwise the
// first: QEMU's old virtiofsd may lie beside the new one.
func look(ctx context.Context, need Need) Found {
	var result Found
	// System directories are missing from an ordinary user's path on Debian.
	dirs := slices.Concat(filepath.SplitList(os.Getenv("PATH")), []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}, need.Dirs)
	for i, program := range need.Programs {
		paths := executables(dirs, program)
		if len(paths) == 0 {
			result.Absent = append(result.Absent, program)
		} else if i == 0 {
			result.Path, result.Version = choose(ctx, need, paths)
		}
	}
	if len(need.Files) > 0 {
		file := firstFile(need.Files)
		if file == "" {
			result.Absent = append(result.Absent, need.Files[0])
		} else if result.Path == "" {
			result.Path = file
		}
	}
	if len(result.Absent) > 0 {
		result.Path = ""
	}
	return result
}

func choose(ctx context.Context, need Need, paths []string) (string, Version) {
	if need.Version == nil {
		return paths[0], Version{}
	}
	var first Version
	for i, path := range paths {
		version := askVersion(ctx, need, path)
		if need.Shortcoming(Found{Path: path, Version: version}) == "" {
			return path, version
		}
		if i == 0 {
			first = version
		}
	}
	return paths[0], first
}

// askVersion returns the zero Version for a program that does not answer: it then counts as unusable.
func askVersion(ctx context.Context, need Need, path string) Version {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return Version{}
	}
	version, _ := findVersion(need.Version, string(out))
	return version
}

// executables returns every executable file of the name in dirs, in order, each directory once.
func executables(dirs []string, name string) []string {
	var paths []string
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

func firstFile(paths []string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// readRelease reads this machine's os-release.
func readRelease() (Release, error) {
	path := firstFile([]string{"/etc/os-release", "/usr/lib/os-release"})
	if path == "" {
		return Release{ID: "linux", Name: "a distribution without os-release"}, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return Release{}, fmt.Errorf("find out which distribution this is: %w", err)
	}
	defer file.Close()
	return ParseRelease(file)
}
