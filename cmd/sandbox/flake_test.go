package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/initrd"
)

// flakeCommand gives scripts the command "flake DIR", which puts testdata/flake
// together with all that it takes. source gives the kernel and the initial RAM
// disk; a nil one makes files that take their place where nothing is booted.
func flakeCommand(bin string, source func() (*image.Image, error)) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"flake": func(ts *testscript.TestScript, neg bool, args []string) {
			if neg || len(args) != 1 {
				ts.Fatalf("usage: flake DIR")
			}
			ts.Check(makeFlake(ts.MkAbs(args[0]), bin, source))
			// Nothing that is built here can be fetched, or needs more in Nix's
			// sandbox than its inputs; root may build for itself, and many users
			// have not switched flakes on.
			ts.Setenv("NIX_CONFIG", "substituters =\nsandbox-paths =\nbuild-users-group =\nexperimental-features =")
			// A store of the script's own needs no daemon, and leaves nothing behind.
			for name, dir := range map[string]string{"NIX_STORE_DIR": "store", "NIX_STATE_DIR": "var", "NIX_LOG_DIR": "log"} {
				ts.Setenv(name, ts.MkAbs(filepath.Join("nix", dir)))
			}
		},
	}
}

func makeFlake(dir, bin string, source func() (*image.Image, error)) error {
	parts := filepath.Join(dir, "parts")
	if err := os.MkdirAll(parts, 0o755); err != nil {
		return err
	}
	build := exec.Command("go", "build", "-o", parts, "../../testdata/flake/mkimage")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return errors.New(string(out))
	}
	links := map[string]string{
		"../../testdata/flake/flake.nix":    filepath.Join(dir, "flake.nix"),
		filepath.Join(bin, "sandbox-agent"): filepath.Join(parts, "sandbox-agent"),
	}
	kernel, disk := filepath.Join(parts, "kernel"), filepath.Join(parts, "initrd.img")
	if source == nil {
		if err := errors.Join(os.WriteFile(kernel, []byte("a kernel"), 0o644), writeEmptyInitrd(disk)); err != nil {
			return err
		}
	} else {
		img, err := source()
		if err != nil {
			return err
		}
		links[img.Kernel()], links[img.Initrd()] = kernel, disk
	}
	for from, to := range links {
		if err := copyForTest(from, to); err != nil {
			return err
		}
	}
	return nil
}

func writeEmptyInitrd(name string) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	contents := initrd.Contents{Agent: []byte("agent"), Time: time.Unix(1, 0)}
	return errors.Join(initrd.Write(f, contents), f.Close())
}

func copyForTest(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, info.Mode().Perm())
}
