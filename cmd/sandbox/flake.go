package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/nix"
)

// flakeOption is the flake of --flake; ok tells whether there is one.
func flakeOption(c *cli.Context) (ref nix.Ref, ok bool, err error) {
	text := c.String("flake")
	if text == "" {
		return ref, false, nil
	}
	if c.String("image") != "" {
		return ref, false, errors.New("--image and --flake both name an image: give one of them (SANDBOX_IMAGE counts as --image)")
	}
	cwd, err := os.Getwd()
	if err != nil {
		return ref, false, err
	}
	ref, err = nix.ParseRef(text, cwd)
	return ref, true, err
}

// imageOfFlake is the image that was last built from ref, or nil.
func imageOfFlake(images *image.Store, ref nix.Ref, system string) (*image.Image, error) {
	for _, origin := range ref.Origins(system) {
		if img, err := images.ByOrigin(origin); img != nil || err != nil {
			return img, err
		}
	}
	return nil, nil
}

// prepareFlake builds the image of --flake unless that was done before. sources
// tells where the option came from.
func prepareFlake(c *cli.Context, images *image.Store, sources map[string]string) error {
	ref, ok, err := flakeOption(c)
	if !ok {
		return err
	}
	arch, err := parseArch(c)
	if err != nil {
		return err
	}
	system := string(arch) + "-linux"
	if img, err := imageOfFlake(images, ref, system); img != nil || err != nil {
		return err
	}
	if file := sources["flake"]; filepath.Base(file) == projectFile {
		if err := allowBuild(file, ref); err != nil {
			return err
		}
	}
	_, err = buildFlake(c.Context, os.Stderr, images, ref, system)
	return err
}

// allowBuild asks whether a project may have its image built. What Nix
// evaluates and builds runs on this machine, and an image can hold what the
// user can read, so that this is not for the project to decide.
func allowBuild(file string, ref nix.Ref) error {
	if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
		return fmt.Errorf("%s asks for an image that is not built yet: look at the flake, for Nix runs it on this machine; then run `sandbox image build %s`", file, ref)
	}
	if !confirm(os.Stdin, os.Stderr, fmt.Sprintf("%s asks for an image that is not built yet. Let Nix run the flake %s on this machine and build it?", file, ref)) {
		return errors.New("the project's image was not built; choose another with --image")
	}
	return nil
}
