package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/build"
	"github.com/sourcery-zone/sandbox/image/debian"
	"github.com/sourcery-zone/sandbox/image/nix"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/machine/project"
)

func imageBuildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "build an image and install it",
		ArgsUsage: "[FLAKE]",
		Description: `FLAKE is what nix build takes, such as . or github:OWNER/REPOSITORY#NAME; without
#NAME, it is the flake's package "image", or else "default". Without FLAKE, it is
the flake in this directory or above it, or else this project's own images
(` + nix.Published + `).

Where there is no Nix, --recipe debian installs Debian packages with mmdebstrap,
without root where user namespaces work. Nothing is done if that image is there
already, built from the same inputs with the same agent.

EXAMPLES
   sandbox image build
   sandbox image build ./nix#dev
   sandbox image build --arch aarch64 ` + nix.Published + `
   sandbox image build --recipe debian --with claude-code --package golang
   sandbox image build --recipe debian --mirror https://mirror.example/debian`,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "recipe", Usage: "`RECIPE` to build by instead of a flake: debian"},
			optionFlag(project.Find("arch")),
			&cli.BoolFlag{Name: "default", Usage: "make it the default image, as the first one is"},
		}, recipeFlags()...),
		OnUsageError: usageError,
		Action:       imageBuild,
	}
}

// recipeFlags have no meaning for a flake, which says all of this itself.
func recipeFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the recipe's image (default: debian, with -bare and, for another architecture than this machine's, -ARCH)"},
		&cli.StringSliceFlag{Name: "with", Usage: "AI `AGENT` to install from npm by the recipe: claude-code, gemini-cli, codex or opencode, with @VERSION if wanted; repeatable"},
		&cli.StringSliceFlag{Name: "package", Usage: "Debian `PACKAGE` to install by the recipe; repeatable"},
		&cli.BoolFlag{Name: "bare", Usage: "leave out the recipe's tools for people and AI agents: what is left boots and runs commands"},
		&cli.StringFlag{Name: "suite", Value: "trixie", Usage: "`SUITE` of Debian for the recipe"},
		&cli.StringSliceFlag{Name: "mirror", Usage: "`URI` of a Debian mirror for the recipe, or a line of apt's sources.list; repeatable (default: what this machine's apt uses)"},
		&cli.StringFlag{Name: "epoch", EnvVars: []string{"SOURCE_DATE_EPOCH"}, Usage: "newest time stamp in the recipe's image, in `SECONDS` since 1970 (default: the date of the archive)"},
		&cli.StringFlag{Name: "agent", Usage: "`FILE` of the guest's agent for the recipe (default: sandbox-agent beside this program; sandbox-agent-ARCH for another architecture)"},
		&cli.BoolFlag{Name: "force", Usage: "build the recipe's image again even if it is up to date"},
	}
}

func imageBuild(c *cli.Context) error {
	arch, err := parseArch(c)
	if err != nil {
		return err
	}
	store, err := openImages()
	if err != nil {
		return err
	}
	_, noDefault := store.Default(string(arch) + "-linux")
	var img *image.Image
	switch c.String("recipe") {
	case debian.Builder:
		img, err = buildRecipe(c, store)
	case "":
		img, err = buildFlakeArgument(c, store, string(arch)+"-linux")
	default:
		err = usage("there is no recipe %q: use %s, or leave out --recipe and name a flake", c.String("recipe"), debian.Builder)
	}
	if err != nil {
		return err
	}
	if c.Bool("default") || noDefault != nil {
		return store.SetDefault(img.Manifest.Name)
	}
	return nil
}

func buildFlakeArgument(c *cli.Context, store *image.Store, system string) (*image.Image, error) {
	if c.NArg() > 1 {
		return nil, usage("unexpected argument %q: name one flake", c.Args().Get(1))
	}
	for _, f := range recipeFlags() {
		// SOURCE_DATE_EPOCH may be set for other reasons.
		if name := f.Names()[0]; c.IsSet(name) && name != "epoch" {
			return nil, usage("--%s is for recipes, and a flake decides that itself: add --recipe debian, or leave out --%[1]s", name)
		}
	}
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	ref, err := build.ChooseFlake(c.Args().First(), cwd)
	if err != nil {
		return nil, err
	}
	return buildFlake(c.Context, c.App.Writer, store, ref, system)
}

// buildFlake builds an image with Nix, installs it, and tells w about it.
func buildFlake(ctx context.Context, w io.Writer, store *image.Store, ref nix.Ref, system string) (*image.Image, error) {
	built, err := build.Flake(ctx, store, nix.Options{Ref: ref, System: system, Progress: progress.New(os.Stderr)})
	if err != nil {
		return nil, err
	}
	printBuilt(w, built)
	return built.Image, nil
}

func printBuilt(w io.Writer, b build.Built) {
	human := func(bytes int64) string { return units.HumanSize(float64(bytes)) }
	const tenth = 100 * time.Millisecond
	m := b.Manifest
	fmt.Fprintf(w, "%s is ready: %s (kernel %s, initrd %s, store %s), built in %s, installed in %s\nsha256 of its manifest: %s\n",
		b.Ref(), human(b.Size()), human(m.Kernel.Size), human(m.Initrd.Size), human(m.Store.Size),
		b.Building.Round(tenth), b.Installing.Round(tenth), b.Digest)
}

func buildRecipe(c *cli.Context, store *image.Store) (*image.Image, error) {
	if c.Args().Present() {
		return nil, usage("unexpected argument %q: a recipe takes no flake, and the image's name is given with --name", c.Args().First())
	}
	o, err := buildOptions(c)
	if err != nil {
		return nil, err
	}
	built, err := build.Recipe(c.Context, store, o)
	if err != nil {
		return nil, err
	}
	if built.UpToDate {
		fmt.Fprintf(c.App.Writer, "%s is up to date\n", built.Ref())
	} else {
		printBuilt(c.App.Writer, built)
	}
	return built.Image, nil
}

func buildOptions(c *cli.Context) (debian.Options, error) {
	arch, err := parseArch(c)
	if err != nil {
		return debian.Options{}, err
	}
	o := debian.Options{
		Name: c.String("name"), Suite: c.String("suite"), Arch: string(arch),
		Bare: c.Bool("bare"), Packages: c.StringSlice("package"), With: splitLists(c.StringSlice("with")), Mirrors: c.StringSlice("mirror"),
		Agent: c.String("agent"), Force: c.Bool("force"), Progress: progress.New(os.Stderr),
	}
	if e := c.String("epoch"); e != "" {
		seconds, err := strconv.ParseInt(e, 10, 64)
		if err != nil || seconds <= 0 {
			return o, usage("--epoch %q is not a number of seconds since 1970", e)
		}
		o.Epoch = time.Unix(seconds, 0)
	}
	cache, err := cacheDir()
	if err != nil {
		return o, err
	}
	o.CacheDir = filepath.Join(cache, "images")
	if o.Agent == "" {
		self, err := os.Executable()
		if err != nil {
			return o, fmt.Errorf("this program's own file cannot be found, so neither can sandbox-agent: say where it is with --agent: %w", err)
		}
		o.Agent = filepath.Join(filepath.Dir(self), build.AgentFile(o.Arch))
	}
	return o, nil
}

// splitLists takes "a,b" for "a" and "b".
func splitLists(values []string) []string {
	var all []string
	for _, v := range values {
		all = append(all, strings.Split(v, ",")...)
	}
	return all
}
