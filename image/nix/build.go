package nix

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/environ"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// Builder is how manifests name images that Nix built.
const Builder = "nix"

// Published is the flake with this project's own images.
const Published = "github:sourcery-zone/sandbox#image"

// Options say what to build.
type Options struct {
	Ref      Ref
	System   string             // such as "x86_64-linux"
	Progress *progress.Reporter // may be nil
}

// Result is an image that Nix has built.
type Result struct {
	Dir    string // in Nix's store
	Origin string // of the Ref's Origins, the one that it was

	nix, path, link string // path is what Nix calls Dir
}

// Build builds the image and checks that it is one, except for its files'
// digests. Until the result is closed, Nix's garbage collector leaves it alone.
func Build(ctx context.Context, o Options) (*Result, error) {
	nix, err := find()
	if err != nil {
		return nil, err
	}
	temp, err := os.MkdirTemp("", "sandbox-nix-")
	if err != nil {
		return nil, fmt.Errorf("keeping what Nix builds: %w", err)
	}
	r := &Result{nix: nix, link: filepath.Join(temp, "result")}
	if err := r.build(ctx, o); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Result) build(ctx context.Context, o Options) error {
	step := o.Progress.Start(fmt.Sprintf("building %s with Nix", o.Ref), 0)
	defer step.Fail()
	for _, a := range o.Ref.attributes(o.System) {
		path, err := runBuild(ctx, r.nix, r.link, o.Ref.Flake+"#"+a.path, step.Note)
		if errors.Is(err, errNoOutput) {
			continue
		}
		if err != nil {
			return fmt.Errorf("building %s with Nix failed: %w", o.Ref, err)
		}
		r.path, r.Dir, r.Origin = path, locate(path), o.Ref.origin(a.name, o.System)
		if err := check(r.Dir, o.System); err != nil {
			return fmt.Errorf("%s#%s breaks the contract of images (docs/images.md): %w", o.Ref.Flake, a.path, err)
		}
		step.Done()
		return nil
	}
	return noOutput(ctx, r.nix, o)
}

// locate finds the file that Nix calls path. Where there is no /nix that it may
// write to, and no daemon, Nix keeps a store of the user's own, whose paths look
// the same (`nix help-stores`, the store "auto").
func locate(path string) string {
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	data := os.Getenv("XDG_DATA_HOME")
	if data == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return path
		}
		data = filepath.Join(home, ".local/share")
	}
	return filepath.Join(data, "nix/root", path)
}

// check compares what was built with the contract and with what was asked for.
func check(dir, system string) error {
	img, err := image.Load(dir)
	if err != nil {
		return err
	}
	if img.Manifest.System != system {
		return fmt.Errorf("the image in %s is for %s instead of %s", dir, img.Manifest.System, system)
	}
	return nil
}

// Keep makes link, for as long as it is there, protect the result from Nix's
// garbage collector. An earlier link of the name is replaced.
func (r *Result) Keep(ctx context.Context, link string) error {
	_, err := runBuild(ctx, r.nix, link, r.path, func(string) {})
	if err != nil {
		return fmt.Errorf("protecting %s from Nix's garbage collector: %w", r.Dir, err)
	}
	return nil
}

// Close ends the protection from the garbage collector that Build began.
func (r *Result) Close() error { return os.RemoveAll(filepath.Dir(r.link)) }

// interruptPatience is how long Nix may take to end its builders.
const interruptPatience = 30 * time.Second

// runBuild builds an installable with link as its garbage-collection root, and
// returns its path in Nix's store.
func runBuild(ctx context.Context, nix, link, installable string, note func(string)) (string, error) {
	cmd := command(ctx, nix, "build", "--log-format", "internal-json", "--print-out-paths", "--out-link", link, "--", installable)
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("starting Nix: %w", err)
	}
	l := newLog(note)
	l.read(stderr)
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			return "", fmt.Errorf("it was interrupted: %w", context.Cause(ctx))
		}
		return "", l.explain(err)
	}
	paths := strings.Fields(out.String())
	if len(paths) != 1 {
		return "", fmt.Errorf("%s has %d outputs (%s): name one of them as %s^NAME", installable, len(paths), strings.Join(paths, ", "), installable)
	}
	return paths[0], nil
}

// command prepares a run of Nix, which may have been installed without flakes
// switched on.
func command(ctx context.Context, nix string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, nix, append([]string{"--extra-experimental-features", "nix-command flakes"}, args...)...)
	cmd.Env = environment(os.Environ())
	// Nix ends its builders when it is interrupted. A group of its own keeps
	// the terminal's Ctrl-C from reaching it twice.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = interruptPatience
	return cmd
}

// environment is what Nix needs of ours: its own settings and those of the
// programs that fetch for it, and the user's directories. Where it has no daemon,
// builders are children of it, and our keys and tokens are not for them.
func environment(ours []string) []string {
	return environ.Pick(ours, append(environ.Proxies(),
		"PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_*", "LANG", "LC_*",
		"NIX_*", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_*", "SSH_AUTH_SOCK",
	)...)
}

// noOutput says what the flake has instead.
func noOutput(ctx context.Context, nix string, o Options) error {
	var sought []string
	for _, a := range o.Ref.attributes(o.System) {
		sought = append(sought, a.path)
	}
	offer := "it has no packages for " + o.System + " at all"
	if names := packages(ctx, nix, o); len(names) > 0 {
		offer = "its packages are " + strings.Join(names, ", ")
	}
	return remedy.Add(fmt.Errorf("the flake %s has no output %s: %s. Name one as %[1]s#NAME",
		o.Ref.Flake, strings.Join(sought, " or "), offer), remedy.BuildPublished, Published)
}

// packages lists the names of a flake's packages, or nothing if that fails: it
// only makes a message better.
func packages(ctx context.Context, nix string, o Options) []string {
	out, err := command(ctx, nix, "eval", "--json", "--apply", "builtins.attrNames", "--", o.Ref.Flake+"#packages."+o.System).Output()
	if err != nil {
		return nil
	}
	var names []string
	_ = json.Unmarshal(out, &names)
	return names
}
