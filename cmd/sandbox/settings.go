package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/project"
)

// applySettings gives the flags that the command has, and that neither the command line
// nor the environment has set, the values of the settings files, the project's before
// the user's. It returns for each flag where its value came from, and notes which
// files do not count because somebody else may have written them. What the project's
// file asks for is used as it was read when consent was asked for. dir is that of the
// project's file, or empty.
func applySettings(c *cli.Context, cwd, userFile string, consent consenter, note func(error)) (from sources, dir string, err error) {
	files, err := project.Load(trust.Caller(os.Getenv), cwd, userFile, note)
	found := givenOptions(c)
	mode, badMode := applyNet(c, files, found)
	errs := []error{err, badMode, applyAgentHome(c, files, found)} // all mistakes are told at once
	take := func(setting project.Setting, source project.Source) {
		if !slices.ContainsFunc(c.Command.Flags, func(f cli.Flag) bool { return f.Names()[0] == setting.Key }) {
			return
		}
		for _, value := range setting.Values {
			if err := c.Set(setting.Key, value); err != nil {
				errs = append(errs, setting.Errorf("%q is not a value for it: %w", value, err))
			}
		}
		found.add(setting.Key, source)
	}
	for _, file := range files {
		if file.Source.Layer == project.ProjectFile {
			dir = file.Dir
		}
		// Either names the image: the one of an earlier source counts.
		imageIsSet := found.has("image") || found.has("flake")
		var asked []project.Setting
		for _, setting := range file.Settings {
			option := project.Find(setting.Key)
			isImage := setting.Key == "image" || setting.Key == "flake"
			earlier, ok := found[setting.Key]
			if ok && earlier.Layer > option.Adds || isImage && imageIsSet || option.Trust == project.Narrower { // see applyNet and applyAgentHome
				continue
			}
			errs = append(errs, setting.Err)
			switch asks := option.Trust == project.Consent && file.Source.Layer == project.ProjectFile; {
			case !saysSomething(&setting, mode):
			case asks:
				asked = append(asked, setting)
			default:
				take(setting, file.Source)
			}
		}
		if len(asked) > 0 && errors.Join(errs...) == nil {
			ok, err := consent(file.Request())
			errs = append(errs, err)
			for _, setting := range asked {
				if ok {
					take(setting, file.Source)
				}
			}
		}
	}
	return found, dir, errors.Join(errs...)
}

func (s sources) has(name string) bool {
	_, ok := s[name]
	return ok
}

// add notes that values of an option came from source, besides those that it has from elsewhere.
func (s sources) add(name string, source project.Source) {
	if earlier, ok := s[name]; ok {
		source = earlier.And(source)
	}
	s[name] = source
}

// extend adds values to those of an option, as from source, of which it has none yet.
func (s sources) extend(name string, to *[]string, values []string, source project.Source) {
	values = slices.DeleteFunc(values, func(value string) bool { return slices.Contains(*to, value) })
	if len(values) > 0 {
		*to = append(*to, values...)
		s.add(name, source)
	}
}

// complete adds the sources of what nobody has set.
func (s sources) complete(m image.Manifest) {
	ofImage := map[string]bool{"memory": m.Defaults.MemoryMiB != 0, "cpus": m.Defaults.CPUs != 0}
	for _, o := range project.Options() {
		switch {
		case s.has(o.Name):
		case o.Name == "image" && s.has("flake"):
			s["image"] = s["flake"]
		case ofImage[o.Name]:
			s[o.Name] = project.Source{Layer: project.OfImage}
		default:
			s[o.Name] = project.Source{Layer: project.Default}
		}
	}
}

// userFile is where the user's own settings are; who has no home has none.
func userFile() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "sandbox", "config.toml")
}

// loadSettings applies the settings files that count here. What the project's asks for is
// used if the user has consented to it, or does so when unknown asks. dir is as of
// applySettings.
func loadSettings(c *cli.Context, unknown consenter) (from sources, dir string, err error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, "", err
	}
	consents, err := openConsents()
	if err != nil {
		return nil, "", err
	}
	consent := func(r project.Request) (bool, error) {
		if consents.Has(r) {
			return true, nil
		}
		return unknown(r)
	}
	return applySettings(c, cwd, userFile(), consent, func(err error) { fmt.Fprintf(notes(), "sandbox: note: %s\n", sentences(err)) })
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

In the output, sources tells of each option where it came from: flag, the variable,
the file, image or default, and untrusted has what the project's file asks for and
does not get before sandbox trust. --schema prints the JSON Schema of a file, by which editors
complete and check it.

EXAMPLES
   sandbox config
   sandbox config --memory 8G | jq .sources
   sandbox config --schema project > sandbox.schema.json`,
		Flags: append(append(createFlags(), commandFlags()...),
			&cli.StringFlag{Name: "schema", Usage: "print the JSON Schema of a `FILE` in place of all that: project (sandbox.toml) or user (your own config.toml)"}),
		OnUsageError: usageError,
		Action:       configAction,
	}
}

func configAction(c *cli.Context) error {
	if c.IsSet("schema") {
		return printSchema(c)
	}
	var untrusted []string
	sources, dir, err := loadSettings(c, func(r project.Request) (bool, error) {
		untrusted = asFlags(r.Asks)
		fmt.Fprintf(notes(), "sandbox: note: %s\n", sentences(needsConsent(r)))
		return false, nil
	})
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
	joinProject(&config, dir, openAnswers(host.Dirs), sources)
	img, err := useImage(c, host, &config)
	if err != nil {
		return err
	}
	sources.complete(img.Manifest)
	shown := map[string]any{"config": config, "image": img.Ref(), "workdir": c.String("workdir"), "sources": sources}
	if untrusted != nil {
		shown["untrusted"] = untrusted
	}
	return printJSON(c.App.Writer, shown)
}

func printSchema(c *cli.Context) error {
	layer, ok := map[string]project.Layer{"project": project.ProjectFile, "user": project.UserFile}[c.String("schema")]
	if !ok {
		return usage("--schema is %q, but must be project or user", c.String("schema"))
	}
	schema, err := project.Schema(layer)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.App.Writer, "%s\n", schema)
	return err
}
