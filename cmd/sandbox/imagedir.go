package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/progress"
)

// isImageDir tells whether an image is named by a directory, as by ./result.
func isImageDir(arg string) bool {
	return strings.ContainsRune(arg, filepath.Separator) || arg == "." || arg == ".."
}

// prepareImageDir installs the image of --image if that is a directory, because
// a sandbox outlives what Nix keeps, and nobody else can change an installed one.
func prepareImageDir(c *cli.Context, images *image.Store) error {
	dir := c.String("image")
	if !isImageDir(dir) {
		return nil
	}
	report := progress.New(os.Stderr)
	img, err := install(c.Context, report, images, dir)
	if err != nil {
		return fmt.Errorf("the directory %s holds no image that can be used: %w", dir, err)
	}
	return c.Set("image", img.Exact().String())
}
