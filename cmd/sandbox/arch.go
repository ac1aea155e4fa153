package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/build"
	"github.com/sourcery-zone/sandbox/qemu"
)

// parseArch is the architecture that was asked for, or this machine's.
func parseArch(c *cli.Context) (qemu.Arch, error) {
	switch arch := c.String("arch"); arch {
	case "":
		return qemu.HostArch(), nil
	case "x86_64", "amd64":
		return "x86_64", nil
	case "aarch64", "arm64":
		return "aarch64", nil
	default:
		return "", usage("--arch %q is not an architecture of guests: use x86_64 or aarch64", arch)
	}
}

// imageForRun is the image that the options name. Without --arch, a named image
// decides about the architecture; without either, it is this machine's.
func imageForRun(c *cli.Context, images *image.Store) (*image.Image, error) {
	arch, err := parseArch(c)
	if err != nil {
		return nil, err
	}
	system := string(arch) + "-linux"
	if flake, ok, err := flakeOption(c); ok || err != nil {
		if err != nil {
			return nil, err
		}
		img, err := build.OfFlake(images, flake, system)
		if img == nil && err == nil {
			err = fmt.Errorf("there is no image of the flake %s yet: sandbox image build %[1]s builds it", flake)
		}
		return img, err
	}
	ref := c.String("image")
	if c.String("arch") == "" {
		return images.Get(ref)
	}
	return images.GetFor(system, ref)
}
