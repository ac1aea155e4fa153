package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/terminal"
)

func imageDiffCommand() *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what changed from one image to another",
		ArgsUsage: "IMAGE IMAGE",
		Description: `Packages are those that the images' makers have listed. A line begins with + for
what is new, - for what is gone, and ~ for what changed.

EXAMPLES
   sandbox image diff nixos@3f0c nixos
   sandbox image diff --json debian claude`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print a JSON object"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() != 2 {
				return usage("name two images; sandbox image ls lists them")
			}
			store, err := openImages()
			if err != nil {
				return err
			}
			from, err := store.Get(c.Args().Get(0))
			if err != nil {
				return err
			}
			to, err := store.Get(c.Args().Get(1))
			if err != nil {
				return err
			}
			diff, err := image.Compare(from, to)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return printJSON(c.App.Writer, diff)
			}
			return printDiff(c.App.Writer, diff)
		},
	}
}

func printDiff(w io.Writer, d image.Diff) error {
	fmt.Fprintf(w, "%s → %s\n", d.From, d.To)
	if d.From == d.To {
		fmt.Fprintln(w, "these are the same image")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	heading := func(what string, changes int) {
		if changes > 0 {
			fmt.Fprintf(t, "%s:\n", what)
		}
	}
	heading("packages", len(d.Packages))
	for _, c := range d.Packages {
		switch {
		case c.From == nil:
			fmt.Fprintf(t, "+ %s\t%s\t%s\n", terminal.Line(c.Name()), c.To.Version, size(c.To.Size))
		case c.To == nil:
			fmt.Fprintf(t, "- %s\t%s\t%s\n", terminal.Line(c.Name()), c.From.Version, size(c.From.Size))
		default:
			fmt.Fprintf(t, "~ %s\t%s → %s\t%s\n", terminal.Line(c.Name()), c.From.Version, c.To.Version, growth(c.From.Size, c.To.Size))
		}
	}
	heading("files", len(d.Files))
	for _, c := range d.Files {
		fmt.Fprintf(t, "~ %s\t%s → %s\t%s\n", c.Role, size(c.From.Size), size(c.To.Size), growth(c.From.Size, c.To.Size))
	}
	heading("manifest", len(d.Manifest))
	for _, c := range d.Manifest {
		switch {
		case c.From == nil:
			fmt.Fprintf(t, "+ %s\t%s\n", c.Field, jsonText(c.To))
		case c.To == nil:
			fmt.Fprintf(t, "- %s\t%s\n", c.Field, jsonText(c.From))
		default:
			fmt.Fprintf(t, "~ %s\t%s → %s\n", c.Field, jsonText(c.From), jsonText(c.To))
		}
	}
	return t.Flush()
}

// size is empty when it is not known.
func size(bytes int64) string {
	if bytes == 0 {
		return ""
	}
	return units.HumanSize(float64(bytes))
}

// growth is by how much something grew or shrank, if it did.
func growth(from, to int64) string {
	switch {
	case from == 0 || to == 0 || from == to:
		return ""
	case from < to:
		return "+" + units.HumanSize(float64(to-from))
	default:
		return "-" + units.HumanSize(float64(from-to))
	}
}

func jsonText(value any) string {
	// It was read from JSON.
	data, _ := json.Marshal(value)
	return string(terminal.JSON(data))
}
