package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/build"
	"github.com/sourcery-zone/sandbox/image/nix"
	"github.com/sourcery-zone/sandbox/machine/project"
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

// prepareFlake builds the image of --flake unless that was done before. sources
// tells where the option came from.
func prepareFlake(c *cli.Context, images *image.Store, sources sources) error {
	ref, ok, err := flakeOption(c)
	if !ok {
		return err
	}
	arch, err := parseArch(c)
	if err != nil {
		return err
	}
	system := string(arch) + "-linux"
	if img, err := build.OfFlake(images, ref, system); img != nil || err != nil {
		return err
	}
	source, named := sources["flake"], c.String("flake")
	ofProject := source.Layer == project.ProjectFile
	if ofProject {
		named = "" // by the project, not by the user
	}
	if err := build.CheckFlake(ref, named); err != nil {
		return err
	}
	if ofProject {
		if err := allowBuild(source.Name, ref); err != nil {
			return err
		}
	}
	_, err = buildFlake(c.Context, notes(), images, ref, system)
	return err
}

// maxQuestion bounds the name of a flake within a question, in bytes: a long one
// could look like several lines of ours.
const maxQuestion = 300

// allowBuild asks whether a project may have its image built. What Nix
// evaluates and builds runs on this machine, and an image can hold what the
// user can read, so that this is not for the project to decide.
func allowBuild(file string, ref nix.Ref) error {
	if len(ref.String()) > maxQuestion {
		return fmt.Errorf("%s names a flake by more than %d characters, which is more than one can judge: look at it, and run sandbox image build with it yourself", file, maxQuestion)
	}
	if !isTerminal(os.Stdin) || !isTerminal(os.Stderr) {
		return fmt.Errorf("%s asks for an image that is not built yet: look at the flake, for Nix runs it on this machine; then run sandbox image build %s", file, ref)
	}
	if !confirm(os.Stdin, notes(), fmt.Sprintf("%s asks for an image that is not built yet. Let Nix run the flake %q on this machine and build it?", file, ref.String())) {
		return errors.New("the project's image was not built; choose another with --image")
	}
	return nil
}
