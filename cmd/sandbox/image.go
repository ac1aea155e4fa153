package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/debian"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/qemu"
)

func imageCommand() *cli.Command {
	return &cli.Command{
		Name:  "image",
		Usage: "build, list, check and remove images",
		Description: `An image is what a sandbox starts from: a kernel, an initial RAM disk and a
read-only file system. Images never change; all sandboxes share them.`,
		Subcommands: []*cli.Command{
			imageBuildCommand(), imageLsCommand(), imageInspectCommand(), imageVerifyCommand(),
			imageRmCommand(), imageGCCommand(), imageDefaultCommand(),
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

func imageBuildCommand() *cli.Command {
	return &cli.Command{
		Name:  "build",
		Usage: "build an image and install it",
		Description: `The debian recipe installs Debian packages with mmdebstrap, without root where
user namespaces work. Nothing is done if the image is there already, built from
the same inputs with the same agent.

EXAMPLES
   sandbox image build
   sandbox image build --name claude --with claude-code --package golang
   sandbox image build --arch aarch64
   sandbox image build --with codex@0.50.0 --mirror https://mirror.example/debian`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "recipe", Value: debian.Builder, Usage: "`RECIPE` to build by: debian"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the image (default: debian, or debian-ARCH for another architecture than this machine's)"},
			archFlag(),
			&cli.StringSliceFlag{Name: "with", Usage: "AI `AGENT` to install from npm: claude-code, gemini-cli, codex or opencode, with @VERSION if wanted; repeatable"},
			&cli.StringSliceFlag{Name: "package", Usage: "Debian `PACKAGE` to install; repeatable"},
			&cli.StringFlag{Name: "suite", Value: "trixie", Usage: "`SUITE` of Debian"},
			&cli.StringSliceFlag{Name: "mirror", Usage: "`URI` of a Debian mirror, or a line of apt's sources.list; repeatable (default: what this machine's apt uses)"},
			&cli.StringFlag{Name: "epoch", EnvVars: []string{"SOURCE_DATE_EPOCH"}, Usage: "newest time stamp in the image, in `SECONDS` since 1970 (default: the date of the archive)"},
			&cli.StringFlag{Name: "agent", Usage: "`FILE` of the guest's agent (default: sandbox-agent beside this program; sandbox-agent-ARCH for another architecture)"},
			&cli.BoolFlag{Name: "force", Usage: "build it again even if it is up to date"},
			&cli.BoolFlag{Name: "default", Usage: "make it the default image, as the first one is"},
		},
		OnUsageError: usageError,
		Action:       imageBuild,
	}
}

func imageBuild(c *cli.Context) error {
	if c.Args().Present() {
		return usageError(c, fmt.Errorf("unexpected argument %q: the image's name is given with --name", c.Args().First()), true)
	}
	if r := c.String("recipe"); r != debian.Builder {
		return usageError(c, fmt.Errorf("there is no recipe %q: use %s", r, debian.Builder), true)
	}
	o, err := buildOptions(c)
	if err != nil {
		return err
	}
	store, err := openImages()
	if err != nil {
		return err
	}
	_, noDefault := store.Default(o.Arch + "-linux")
	img, err := upToDate(store, o)
	if err != nil {
		return err
	}
	if img != nil && !o.Force {
		fmt.Fprintf(c.App.Writer, "%s is up to date\n", img.Ref())
	} else if img, err = buildImage(c, store, o); err != nil {
		return err
	}
	if c.Bool("default") || noDefault != nil {
		return store.SetDefault(img.Manifest.Name)
	}
	return nil
}

func buildImage(c *cli.Context, store *image.Store, o debian.Options) (*image.Image, error) {
	start := time.Now()
	dir, err := debian.Build(c.Context, o)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	step := o.Progress.Start("installing the image", 0)
	defer step.Fail()
	img, err := store.Install(c.Context, dir)
	if err != nil {
		return nil, err
	}
	step.Done()
	fmt.Fprintf(c.App.Writer, "%s is ready: %s, built in %s\n", img.Ref(), units.HumanSize(float64(img.Size())), time.Since(start).Round(time.Second))
	return img, nil
}

func buildOptions(c *cli.Context) (debian.Options, error) {
	o := debian.Options{
		Name: c.String("name"), Suite: c.String("suite"), Arch: string(qemu.HostArch()),
		Packages: c.StringSlice("package"), With: splitLists(c.StringSlice("with")), Mirrors: c.StringSlice("mirror"),
		Agent: c.String("agent"), Force: c.Bool("force"), Progress: progress.New(os.Stderr),
	}
	agent := "sandbox-agent"
	if arch, err := parseArch(c); err != nil {
		return o, err
	} else if arch != qemu.HostArch() {
		o.Arch, agent = string(arch), "sandbox-agent-"+string(arch)
		if o.Name == "" {
			o.Name = debian.Builder + "-" + string(arch)
		}
	}
	if o.Name == "" {
		o.Name = debian.Builder
	}
	if e := c.String("epoch"); e != "" {
		seconds, err := strconv.ParseInt(e, 10, 64)
		if err != nil || seconds <= 0 {
			return o, usageError(c, fmt.Errorf("--epoch %q is not a number of seconds since 1970", e), true)
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
		o.Agent = filepath.Join(filepath.Dir(self), agent)
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

// upToDate finds the image that a build would make, or returns nil.
func upToDate(store *image.Store, o debian.Options) (*image.Image, error) {
	inputs, err := o.Inputs()
	if err != nil {
		return nil, err
	}
	agent, err := o.AgentDigest()
	if err != nil {
		return nil, err
	}
	images, err := store.List()
	if err != nil {
		return nil, err
	}
	for _, img := range images {
		p := img.Manifest.Provenance
		if img.Broken == nil && img.Manifest.Name == o.Name && p.Builder == debian.Builder && p.Inputs == inputs && p.AgentSHA == agent {
			return img, nil
		}
	}
	return nil, nil
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
		Name:         "ls",
		Aliases:      []string{"list"},
		Usage:        "list images",
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
		fmt.Fprintf(t, "%s\t%s\t%s ago\t%s\n", i.Ref, units.HumanSize(float64(i.Size)), units.HumanDuration(now.Sub(i.Installed)), note)
	}
	return t.Flush()
}

func imageInspectCommand() *cli.Command {
	return &cli.Command{
		Name:         "inspect",
		Usage:        "show everything about an image as JSON",
		ArgsUsage:    "[IMAGE]",
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
		Name:         "verify",
		Usage:        "compare an image's files with its manifest",
		ArgsUsage:    "[IMAGE]",
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
		return nil, nil, usageError(c, errors.New("name one image"), true)
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
		Name:         "rm",
		Usage:        "remove images that no sandbox uses",
		ArgsUsage:    "IMAGE...",
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return usageError(c, errors.New("name the images to remove; `sandbox image ls` lists them"), true)
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
			return errors.Join(errs...)
		},
	}
}

func imageGCCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "remove images that newer ones replace, damaged ones, and the builds behind them",
		Description: `Images that a sandbox uses, and the default one, always stay. What is kept to
make the next build faster goes too, unless an image was made from it.`,
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
	if err != nil {
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
		Name:         "default",
		Usage:        "show the default image, or choose it",
		ArgsUsage:    "[IMAGE]",
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
