package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/debian"
	"github.com/sourcery-zone/sandbox/internal/terminal"
)

func imageCommand() *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "build, list, check and remove images",
		Description: `An image is what a sandbox starts from: a kernel, an initial RAM disk and a
read-only file system. Images never change; all sandboxes share them.`,
		Subcommands: []*cli.Command{
			imageBuildCommand(), imageLsCommand(), imageInspectCommand(), imageVerifyCommand(),
			imageDiffCommand(), imageRmCommand(), imageGCCommand(), imageDefaultCommand(), imageWarmCommand(),
		},
	}
}

func openImages() (*image.Store, error) {
	dir, err := imagesDir()
	if err != nil {
		return nil, err
	}
	return image.OpenStore(dir)
}

// imageInfo is an image as `image ls --json` and `image inspect` print it.
type imageInfo struct {
	Ref       string          `json:"ref"`
	Digest    string          `json:"digest"`
	Dir       string          `json:"dir"`
	Installed time.Time       `json:"installed"`
	Size      int64           `json:"size"`
	Default   bool            `json:"default"`
	Broken    string          `json:"broken,omitempty"`
	Manifest  *image.Manifest `json:"manifest,omitempty"`
}

func describeImage(img *image.Image, defaultDir string) imageInfo {
	info := imageInfo{
		Ref: img.Ref(), Digest: img.Digest, Dir: img.Dir, Installed: img.Installed,
		Size: img.Size(), Default: img.Dir == defaultDir,
	}
	if img.Broken != nil {
		info.Broken = img.Broken.Error()
	}
	return info
}

// defaultImageDir is empty when there is no default image, which is no error
// for a command that only shows which one it is.
func defaultImageDir(store *image.Store) string {
	img, err := store.Get("")
	if err != nil {
		return ""
	}
	return img.Dir
}

func imageLsCommand() *cli.Command {
	return &cli.Command{
		Name:    "ls",
		Aliases: []string{"list"},
		Usage:   "list images",
		Description: `EXAMPLES
   sandbox image ls
   sandbox image ls --json | jq -r '.[] | select(.broken) | .ref'`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print a JSON array"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			store, err := openImages()
			if err != nil {
				return err
			}
			images, err := store.List()
			if err != nil {
				return err
			}
			defaultDir := defaultImageDir(store)
			infos := []imageInfo{}
			for _, img := range images {
				infos = append(infos, describeImage(img, defaultDir))
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, infos)
			}
			return printImages(c.App.Writer, infos, time.Now())
		},
	}
}

func printImages(w io.Writer, infos []imageInfo, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "IMAGE\tSIZE\tINSTALLED\t")
	for _, i := range infos {
		note := ""
		switch {
		case i.Broken != "":
			note = "damaged: " + i.Broken
		case i.Default:
			note = "default"
		}
		fmt.Fprintf(t, "%s\t%s\t%s ago\t%s\n", terminal.Line(i.Ref), units.HumanSize(float64(i.Size)), units.HumanDuration(now.Sub(i.Installed)), terminal.Line(note))
	}
	return t.Flush()
}

func imageInspectCommand() *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show everything about an image as JSON",
		ArgsUsage: "[IMAGE]",
		Description: `Without IMAGE, it is the default one.

EXAMPLES
   sandbox image inspect
   sandbox image inspect --packages claude | jq .manifest.provenance.packages`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "packages", Usage: "with the list of its packages"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			store, img, err := imageArgument(c)
			if err != nil {
				return err
			}
			info := describeImage(img, defaultImageDir(store))
			m := img.Manifest
			if !c.Bool("packages") {
				m.Provenance.Packages = nil
			}
			info.Manifest = &m
			return printJSON(c.App.Writer, info)
		},
	}
}

func imageVerifyCommand() *cli.Command {
	return &cli.Command{
		Name:      "verify",
		Usage:     "compare an image's files with its manifest",
		ArgsUsage: "[IMAGE]",
		Description: `Without IMAGE, it is the default one. The exit code is 1 when a file is not what the
manifest says.

EXAMPLES
   sandbox image verify
   sandbox image verify claude@0123456789ab`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			_, img, err := imageArgument(c)
			if err != nil {
				return err
			}
			if err := img.Verify(c.Context); err != nil {
				return err
			}
			_, err = fmt.Fprintf(c.App.Writer, "%s is intact\n", img.Ref())
			return err
		},
	}
}

// imageArgument is the image that the only argument names, or the default one.
func imageArgument(c *cli.Context) (*image.Store, *image.Image, error) {
	if c.NArg() > 1 {
		return nil, nil, usage("name one image")
	}
	store, err := openImages()
	if err != nil {
		return nil, nil, err
	}
	img, err := store.Get(c.Args().First())
	return store, img, err
}

func imageRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove images that no sandbox uses",
		ArgsUsage: "IMAGE...",
		Description: `EXAMPLES
   sandbox image rm claude
   sandbox image rm debian@0123456789ab debian@ba9876543210`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return usage("name the images to remove; sandbox image ls lists them")
			}
			store, err := openImages()
			if err != nil {
				return err
			}
			inUse, err := imageDigestsInUse()
			if err != nil {
				return err
			}
			var errs []error
			for _, ref := range c.Args().Slice() {
				errs = append(errs, store.Remove(ref, inUse))
			}
			return errors.Join(append(errs, sweepTemplates())...)
		},
	}
}

func imageGCCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "remove images that newer ones replace, damaged ones, and the builds behind them",
		Description: `Images that a sandbox uses, and the default one, always stay. What is kept to
make the next build faster goes too, unless an image was made from it, and so do
states for warm starts that nothing can use. What Nix has built for an image that is
gone is left to nix store gc.

EXAMPLES
   sandbox image gc`,
		OnUsageError: usageError,
		Action:       imageGC,
	}
}

func imageGC(c *cli.Context) error {
	store, err := openImages()
	if err != nil {
		return err
	}
	inUse, err := imageDigestsInUse()
	if err != nil {
		return err
	}
	removed, err := store.GC(inUse)
	for _, r := range removed {
		fmt.Fprintf(c.App.Writer, "removed %s: %s\n", r.Ref, r.Reason)
	}
	if err = errors.Join(err, sweepTemplates()); err != nil {
		return err
	}
	images, err := store.List()
	if err != nil {
		return err
	}
	var inputs []string
	for _, img := range images {
		inputs = append(inputs, img.Manifest.Provenance.Inputs)
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	pruned, err := debian.Prune(filepath.Join(cache, "images"), slices.Compact(inputs))
	for _, p := range pruned {
		fmt.Fprintf(c.App.Writer, "removed the cached root file system %s\n", p)
	}
	return err
}

func imageDefaultCommand() *cli.Command {
	return &cli.Command{
		Name:      "default",
		Usage:     "show the default image, or choose it",
		ArgsUsage: "[IMAGE]",
		Description: `EXAMPLES
   sandbox image default
   sandbox image default claude             what run starts without --image`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			store, img, err := imageArgument(c)
			if err != nil {
				return err
			}
			if c.Args().Present() {
				return store.SetDefault(c.Args().First())
			}
			_, err = fmt.Fprintln(c.App.Writer, img.Ref())
			return err
		},
	}
}
