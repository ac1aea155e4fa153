package main

import (
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/build"
	"github.com/sourcery-zone/sandbox/internal/progress"
)

// prepareImageDir installs the image of --image if that is a directory, because
// a sandbox outlives what Nix keeps, and nobody else can change an installed one.
func prepareImageDir(c *cli.Context, images *image.Store) error {
	dir := c.String("image")
	if !image.IsDirectory(dir) {
		return nil
	}
	report := progress.New(os.Stderr)
	img, err := build.Install(c.Context, images, dir, report)
	if err != nil {
		return fmt.Errorf("the directory %s holds no image that can be used: %w", dir, err)
	}
	return c.Set("image", img.Exact().String())
}
