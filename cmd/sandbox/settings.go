package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/project"
)

// fromUser is the source of what a flag or the environment has set.
const fromUser = "flag or environment"

// applySettings gives the flags that neither the command line nor the
// environment has set the values of the settings files, the project's before
// the user's. It returns for each flag where its value came from, and notes which
// files do not count because somebody else may have written them.
func applySettings(c *cli.Context, cwd, userFile string, note func(error)) (map[string]string, error) {
	files, err := project.Load(trust.Caller(os.Getenv), cwd, userFile, note)
	errs := []error{err} // all mistakes are told at once
	sources := map[string]string{}
	for _, name := range append(project.Keys(), "name", "transport", "machine") {
		if c.IsSet(name) {
			sources[name] = fromUser
		}
	}
	for _, file := range files {
		// Either names the image: the one of an earlier source counts.
		imageIsSet := sources["image"] != "" || sources["flake"] != ""
		for _, setting := range file.Settings {
			isImage := setting.Key == "image" || setting.Key == "flake"
			if sources[setting.Key] != "" || isImage && imageIsSet {
				continue
			}
			errs = append(errs, setting.Err)
			for _, value := range setting.Values {
				if err := c.Set(setting.Key, value); err != nil {
					errs = append(errs, setting.Errorf("%q is not a value for it: %w", value, err))
				}
			}
			sources[setting.Key] = file.Path
		}
	}
	return sources, errors.Join(errs...)
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
	host, err := machine.Open()
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
