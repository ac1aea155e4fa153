package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/project"
)

func imageWarmCommand() *cli.Command {
	return &cli.Command{
		Name:      "warm",
		Usage:     "save the state of a booted machine, for sandbox run --warm",
		ArgsUsage: "[IMAGE]",
		Description: `The image is booted once, and saved when its system is up. A sandbox that is run with
--warm and fits the state begins with it: the same image, memory, CPUs, disk, network
and number of shares. Without this command, the first sandbox run --warm does the same.

EXAMPLES
   sandbox image warm
   sandbox image warm --memory 4G --cpus 4 --shares 2 claude`,
		Flags:        append(optionFlags(func(o project.Option) bool { return o.Saved }), &cli.IntFlag{Name: "shares", Value: 1, Usage: "the `NUMBER` of --share that run will have"}),
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() > 1 {
				return usage("sandbox image warm takes one image, not %d", c.NArg())
			}
			if n := c.Int("shares"); n < 0 || n > maxWarmShares {
				return usage("--shares is %d, but must be from 0 to %d", n, maxWarmShares)
			}
			return imageWarm(c)
		},
	}
}

// maxWarmShares is what fits into a machine beside its other devices.
const maxWarmShares = 16

func imageWarm(c *cli.Context) error {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	config, err := configure(c, host, nil)
	if err != nil {
		return err
	}
	img, err := host.Images.Get(c.Args().First())
	if err != nil {
		return err
	}
	if config, err = host.Resolve(config, img); err != nil {
		return err
	}
	plan, err := host.Plan(c.Context, config, img)
	if err != nil {
		return err
	}
	template, exists, err := host.Template(plan, c.Int("shares"))
	if err == nil && !exists {
		err = makeTemplate(c.Context, template, config)
	}
	if err != nil {
		return err
	}
	if exists {
		fmt.Fprintf(c.App.Writer, "%s is warm already\n", config.Image)
	} else {
		fmt.Fprintf(c.App.Writer, "%s is warm\n", config.Image)
	}
	return nil
}

// warmStart begins with the template for such a sandbox, which it makes unless
// it is there. Without one, the sandbox boots.
func warmStart(ctx context.Context, host *machine.Host, config machine.Config, plan *machine.Plan) starter {
	template, exists, err := host.Template(plan, len(plan.Shares))
	if err == nil && !exists {
		err = makeTemplate(ctx, template, config)
	}
	if err != nil {
		fmt.Fprintf(notes(), "sandbox: note: the sandbox boots, because the state of its image could not be saved: %s\n", sentences(err))
		return coldStart
	}
	return func(ctx context.Context, s *machine.Sandbox, o machine.StartOptions) (*machine.Hold, error) {
		return s.StartWarm(ctx, template, o)
	}
}

func makeTemplate(ctx context.Context, template machine.Template, config machine.Config) error {
	return showStart("saving the state of "+config.Image.String()+" for warm starts", func(o machine.StartOptions) error {
		o.Note = nil // whoever starts with it is told the same
		return template.Make(ctx, config, o)
	})
}
