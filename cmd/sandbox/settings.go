package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/image/nix"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// projectFile configures the sandboxes of a project; the nearest one in the
// working directory or above it counts.
const projectFile = "sandbox.toml"

// A settings file has the long names of flags as keys. The user's own file may
// set all of these.
var userKeys = []string{"image", "flake", "memory", "cpus", "disk", "timeout", "workdir", "net", "ssh-port", "share", "publish", "ssh-key", "restart"}

// A project file may come from a stranger, or be written by the last guest
// that had the project as a share. So it may describe the machine, but not
// open anything of the host to it: its shares and its flake must lie in the
// project, and run asks before it builds that.
var projectKeys = []string{"image", "flake", "memory", "cpus", "disk", "timeout", "workdir", "share"}

// fromUser is the source of what a flag or the environment has set.
const fromUser = "flag or environment"

// applySettings gives the flags that neither the command line nor the
// environment has set the values of the settings files, the project's before
// the user's. It returns for each flag where its value came from, and notes which
// files do not count because somebody else may have written them.
func applySettings(c *cli.Context, cwd, userFile string, note func(error)) (map[string]string, error) {
	owners, sources := trust.Caller(os.Getenv), map[string]string{}
	for _, name := range append(slices.Clone(userKeys), "name", "transport", "machine") {
		if c.IsSet(name) {
			sources[name] = fromUser
		}
	}
	for _, file := range []settingsFile{{openUp(owners, cwd, projectFile, note), projectKeys}, {openOwn(owners, userFile, note), userKeys}} {
		if file.f == nil {
			continue
		}
		err := applyFile(c, file.f, file.allowed, sources)
		file.f.Close()
		if err != nil {
			return nil, err
		}
	}
	return sources, nil
}

// settingsFile is an open file of settings, or none, and what it may set.
type settingsFile struct {
	f       *os.File
	allowed []string
}

// openUp opens the nearest file of that name in dir or above it that counts, or
// returns nil.
func openUp(owners trust.Owners, dir, name string, note func(error)) *os.File {
	for {
		if f := openOwn(owners, filepath.Join(dir, name), note); f != nil {
			return f
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		dir = parent
	}
}

// openOwn opens a file if there is one that counts, and otherwise returns nil.
// Somebody else's is as good as none: who could order a sandbox of theirs here
// would do so with every directory that all may write.
func openOwn(owners trust.Owners, file string, note func(error)) *os.File {
	if file == "" {
		return nil // who has no home has no file of their own
	}
	f, err := owners.Open(file)
	switch foreign := (*trust.Error)(nil); {
	case err == nil:
		return f
	case errors.As(err, &foreign):
		note(fmt.Errorf("%w, so %s does not count", foreign, file))
	case !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ENOTDIR):
		note(fmt.Errorf("%s does not count: %w", file, err))
	}
	return nil
}

func applyFile(c *cli.Context, f *os.File, allowed []string, sources map[string]string) error {
	file := f.Name()
	data, err := readSmall(f)
	if err != nil {
		return err
	}
	var values map[string]any
	if _, err := toml.Decode(string(data), &values); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	// Either names the image: the one of an earlier source counts.
	if values["image"] != nil && values["flake"] != nil {
		return fmt.Errorf("%s: image and flake both name an image: only one of them can be set", file)
	}
	if sources["image"] != "" || sources["flake"] != "" {
		delete(values, "image")
		delete(values, "flake")
	}
	for name, value := range values {
		if !slices.Contains(allowed, name) {
			return fmt.Errorf("%s: %q cannot be set here: only %s can", file, name, strings.Join(allowed, ", "))
		}
		if sources[name] != "" {
			continue
		}
		if err := applyValue(c, file, name, value); err != nil {
			return fmt.Errorf("%s: %s: %w", file, name, err)
		}
		sources[name] = file
	}
	return nil
}

func applyValue(c *cli.Context, file, name string, value any) error {
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	for _, v := range list {
		text := fmt.Sprint(v)
		var err error
		switch name {
		case "share":
			text, err = shareOf(file, text)
		case "flake":
			text, err = flakeOf(file, text)
		case "image":
			if isImageDir(text) {
				err = fmt.Errorf("%q is a directory: only --image can name one", text)
			}
		}
		if err != nil {
			return err
		}
		if err := c.Set(name, text); err != nil {
			return fmt.Errorf("%q is not a value for it: %w", text, err)
		}
	}
	return nil
}

// shareOf makes a share's host directory absolute, and holds a project file to
// its project.
func shareOf(file, spec string) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	share, err := virtiofs.ParseShare(spec, dir)
	if err != nil {
		return "", err
	}
	if filepath.Base(file) == projectFile && !inside(dir, share.Source) {
		return "", fmt.Errorf("%s lies outside the project %s: a project file may share only what is in its project; give --share yourself if you want this", share.Source, dir)
	}
	return share.String(), nil
}

// flakeOf makes a flake's directory absolute, and holds a project file to its
// project: only the user decides what else Nix may run.
func flakeOf(file, text string) (string, error) {
	dir, err := filepath.EvalSymlinks(filepath.Dir(file))
	if err != nil {
		return "", err
	}
	ref, err := nix.ParseRef(text, dir)
	if err != nil {
		return "", err
	}
	if filepath.Base(file) == projectFile && !inside(dir, ref.Dir) {
		return "", fmt.Errorf("%s is not in the project %s: a project file may name only a flake of its project; give --flake yourself if you want this one", ref, dir)
	}
	return ref.String(), nil
}

func inside(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, dir+string(filepath.Separator))
}

// userFile is where the user's own settings are; who has no home has none.
func userFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "sandbox", "config.toml")
}

// loadSettings applies the settings files that count here.
func loadSettings(c *cli.Context) (map[string]string, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	return applySettings(c, cwd, userFile(), func(err error) { fmt.Fprintf(notes(), "sandbox: note: %v\n", err) })
}

func configCommand() *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "show what run would use here, and where each value comes from",
		Description: `A value is taken from the first of: flag, environment (SANDBOX_IMAGE, SANDBOX_MEMORY,
...), the project's sandbox.toml (the nearest one above the working directory),
your own config.toml in ~/.config/sandbox, the image, and our defaults.
A file counts only if it and its directory are yours (or root's), and nobody else
can write them. The files have the long names of flags as keys:

   flake = ".#image"
   memory = "4G"
   cpus = 4
   share = [".", "docs:docs:ro"]

EXAMPLES
   sandbox config
   sandbox config --memory 8G | jq .sources`,
		Flags:        append(createFlags(), commandFlags()...),
		OnUsageError: usageError,
		Action:       configAction,
	}
}

func configAction(c *cli.Context) error {
	sources, err := loadSettings(c)
	if err != nil {
		return err
	}
	host, err := openHost()
	if err != nil {
		return err
	}
	config, err := configure(c, host, sources)
	if err != nil {
		return err
	}
	img, err := useImage(c, host, &config)
	if err != nil {
		return err
	}
	return printJSON(c.App.Writer, map[string]any{"config": config, "image": img.Ref(), "workdir": c.String("workdir"), "sources": sources})
}
