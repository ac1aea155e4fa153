package confine

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Parts are what a program is made of on this machine. They can be stored as JSON.
type Parts struct {
	Program string   // with all symbolic links followed
	Loader  string   // of shared libraries; empty if it needs none
	Dirs    []string // with its shared libraries
}

// nixStore is where each library has a directory of its own.
const nixStore = "/nix/store"

// FindParts finds out what the program at the path is made of. It does not run the program.
func FindParts(ctx context.Context, path string) (Parts, error) {
	program, err := filepath.EvalSymlinks(path)
	if err != nil {
		return Parts{}, fmt.Errorf("looking for what %s is made of: %w", path, err)
	}
	p := Parts{Program: program}
	if strings.HasPrefix(program, nixStore+"/") { // maybe a script that starts the real one from there
		p.Dirs = []string{nixStore}
		return p, nil
	}
	if p.Loader, err = loader(program); err != nil || p.Loader == "" {
		return p, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Loader, "--list", program)
	cmd.Env = []string{}
	out, err := cmd.Output()
	if err != nil {
		return p, fmt.Errorf("listing the libraries of %s: %w", program, err)
	}
	p.Dirs = libraryDirs(string(out), p.Loader)
	return p, nil
}

// OwnParts finds out what this program is made of besides itself, for Program.Self.
func OwnParts(ctx context.Context) (Parts, error) {
	p, err := FindParts(ctx, selfPath)
	if !slices.Contains(p.Dirs, nixStore) {
		p.Program = ""
	}
	return p, err
}

// loaderCache tells the loader which libraries are where, of those that are not in its own directories, such as
// /usr/local/lib (ld.so(8)).
const loaderCache = "/etc/ld.so.cache"

// Paths are what a Room must show of the program.
func (p Parts) Paths() []string {
	list := slices.Clone(p.Dirs)
	if p.Program != "" {
		list = append([]string{p.Program}, list...)
	}
	if p.Loader == "" {
		return list
	}
	if _, err := os.Stat(loaderCache); err == nil {
		list = append(list, loaderCache)
	}
	return append(list, p.Loader)
}

// Executes are those of the Paths that a Room must allow to be executed.
func (p Parts) Executes() []string {
	if slices.Contains(p.Dirs, nixStore) {
		return []string{nixStore}
	}
	return slices.DeleteFunc([]string{p.Program, p.Loader}, func(path string) bool { return path == "" })
}

// loader returns the program's interpreter, the loader of shared libraries.
func loader(program string) (string, error) {
	f, err := elf.Open(program)
	if _, bad := errors.AsType[*elf.FormatError](err); bad || errors.Is(err, io.EOF) {
		return "", fmt.Errorf("%s is no program that can be confined (such as a script): name the program that it starts", program)
	}
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", program, err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(p.Open())
		if err != nil {
			return "", fmt.Errorf("reading %s: %w", program, err)
		}
		return strings.TrimRight(string(name), "\x00"), nil
	}
	return "", nil
}

// libraryDirs reads the loader's list, whose lines are "name => path (address)" or "path (address)", and in which
// the loader itself is, too.
func libraryDirs(out, loader string) (dirs []string) {
	for line := range strings.Lines(out) {
		_, after, found := strings.Cut(line, "=> ")
		if !found {
			after = line
		}
		path, _, _ := strings.Cut(strings.TrimSpace(after), " (")
		if !filepath.IsAbs(path) || path == loader {
			continue // linux-vdso.so.1 is no file
		}
		if dir := filepath.Dir(path); !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
