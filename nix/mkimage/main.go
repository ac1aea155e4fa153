// Command mkimage puts an image together in a Nix build. It first writes an
// archive of what the guest has besides its packages, for the store; and when
// the build has packed that, it takes the kernel, the modules and the agent that
// Nix has made and writes kernel, initrd and manifest beside it. It shares the
// latter with the Debian recipe, so that both kinds of image are the same where
// they can be.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/assemble"
	"github.com/sourcery-zone/sandbox/image/initrd"
)

const usage = `usage:
  mkimage root ATTRS.json WRAPPERS    writes the beginning of an archive of the guest's root: /etc, users, homes, and
                                      what the steps in WRAPPERS make
  mkimage image ATTRS.json DIRECTORY  completes the image in DIRECTORY, which holds store.erofs
`

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 3 && args[0] == "root":
		err = writeRoot(os.Stdout, args[1], args[2])
	case len(args) == 3 && args[0] == "image":
		err = writeImage(context.Background(), args[1], args[2])
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

// spec is what nix/guest/image.nix says.
type spec struct {
	// Manifest has everything but the files and the packages.
	Manifest image.Manifest `json:"manifest"`
	Guest    boot.Setup     `json:"guest"`

	Kernel          string   `json:"kernel"`      // file
	ModulesTree     string   `json:"modulesTree"` // directory with modules.dep
	Modules         []string `json:"modules"`
	OptionalModules []string `json:"optionalModules"`
	Agent           string   `json:"agent"`        // static program
	Registration    string   `json:"registration"` // of closureInfo

	Root *root `json:"root"` // nil: the guest makes all of it at its start
}

// readSpec reads the attribute "spec" of the derivation whose attributes are in
// file.
func readSpec(file string) (spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return spec{}, err
	}
	var attrs struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(data, &attrs); err != nil {
		return spec{}, fmt.Errorf("reading %s: %w", file, err)
	}
	var s spec
	d := json.NewDecoder(bytes.NewReader(attrs.Spec))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return spec{}, fmt.Errorf("reading the attribute spec of %s: %w", file, err)
	}
	return s, nil
}

// writeRoot writes what the store has of the root. The file steps has those of
// NixOS's script that makes wrappers.
func writeRoot(w io.Writer, attrs, steps string) error {
	s, err := readSpec(attrs)
	if err != nil || s.Root == nil {
		return err
	}
	files, err := s.Root.files()
	if err != nil {
		return fmt.Errorf("the configuration's users and /etc: %w", err)
	}
	text, err := os.ReadFile(steps)
	if err == nil {
		err = s.Root.wrappers(files, string(text))
	}
	if err != nil {
		return fmt.Errorf("the configuration's security.wrappers: %w", err)
	}
	return writeTar(w, files, s.Manifest.Provenance.Built)
}

func writeImage(ctx context.Context, attrs, dir string) error {
	s, err := readSpec(attrs)
	if err != nil {
		return err
	}
	m := s.Manifest
	if m.Provenance.Packages, err = readPackages(s.Registration); err != nil {
		return err
	}
	kernel, err := os.ReadFile(s.Kernel)
	if err != nil {
		return err
	}
	if err := assemble.Kernel(dir, kernel); err != nil {
		return fmt.Errorf("%s: %w", s.Kernel, err)
	}
	modules, err := initrd.Select(os.DirFS(s.ModulesTree), s.Modules, s.OptionalModules...)
	if err != nil {
		return err
	}
	agent, err := os.ReadFile(s.Agent)
	if err != nil {
		return err
	}
	_, err = assemble.Image(ctx, dir, assemble.Parts{Manifest: m, Setup: s.Guest, Agent: agent, Modules: modules})
	return err
}
