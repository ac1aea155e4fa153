// Command mkimage puts an image together in a Nix build: it takes the kernel,
// the modules and the agent that Nix has made and writes kernel, initrd and
// manifest beside the store that the build has packed already. It shares all of
// that with the Debian recipe, so that both kinds of image are the same where
// they can be.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/initrd"
	"github.com/sourcery-zone/sandbox/image/kernel"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: mkimage ATTRS.json DIRECTORY: completes the image in DIRECTORY, which holds store.erofs")
		os.Exit(2)
	}
	if err := run(context.Background(), os.Args[1], os.Args[2]); err != nil {
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

// Names of an image's files.
const (
	kernelFile = "kernel"
	initrdFile = "initrd.img"
	storeFile  = "store.erofs"
)

func run(ctx context.Context, attrs, dir string) error {
	s, err := readSpec(attrs)
	if err != nil {
		return err
	}
	m := s.Manifest
	if m.Provenance.Packages, err = readPackages(s.Registration); err != nil {
		return err
	}
	if err := writeKernel(s.Kernel, filepath.Join(dir, kernelFile)); err != nil {
		return err
	}
	if err := s.writeInitrd(m, dir); err != nil {
		return err
	}
	for _, f := range []struct {
		file *image.File
		name string
	}{{&m.Kernel, kernelFile}, {&m.Initrd, initrdFile}, {&m.Store.File, storeFile}} {
		if *f.file, err = image.Describe(ctx, dir, f.name); err != nil {
			return err
		}
	}
	data, err := m.Encode()
	if err != nil {
		return fmt.Errorf("the configuration makes no valid image: %w", err)
	}
	return os.WriteFile(filepath.Join(dir, image.ManifestFile), data, 0o444)
}

func writeKernel(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if data, err = kernel.Plain(data); err != nil {
		return fmt.Errorf("%s: %w", from, err)
	}
	return os.WriteFile(to, data, 0o444)
}

func (s spec) writeInitrd(m image.Manifest, dir string) error {
	modules, err := initrd.Select(os.DirFS(s.ModulesTree), s.Modules, s.OptionalModules...)
	if err != nil {
		return err
	}
	agent, err := os.ReadFile(s.Agent)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(dir, initrdFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := initrd.Write(f, initrd.Contents{
		Agent: agent, Image: m.Boot(s.Guest), Modules: modules, Time: m.Provenance.Built,
	}); err != nil {
		return err
	}
	return f.Close()
}
