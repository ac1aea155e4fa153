package main

import (
	"errors"
	"fmt"
	"os"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine/cache"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

func cacheCommand() *cli.Command {
	return &cli.Command{
		Name:  "cache",
		Usage: "list and remove what sandboxes have cached for their projects",
		Description: `A cache is a directory of the guest that is on a disk of its own, such as node_modules with
sandbox run --cache node_modules. What is in it at the end of a sandbox, the next one of the
same project begins with.`,
		Subcommands: []*cli.Command{cacheLsCommand(), cacheRmCommand()},
	}
}

func openCaches() (cache.Store, error) {
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	return cache.Store{Dir: dirs.Caches()}, err
}

func cacheLsCommand() *cli.Command {
	return lister[cache.Entry]{
		of: "cache", usage: "list the caches, those that were kept last first",
		list: func() ([]cache.Entry, error) {
			store, err := openCaches()
			if err != nil {
				return nil, err
			}
			return store.List()
		},
		columns: []string{"ID", "PROJECT", "DIRECTORY", "SIZE", "KEPT"},
		row: func(e cache.Entry) []string {
			return []string{e.ID(), e.Project, e.Target, units.BytesSize(float64(e.Used)), ago(e.Kept)}
		},
		id: cache.Entry.ID,
	}.command()
}

func cacheRmCommand() *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "remove caches",
		ArgsUsage: "ID...",
		Description: `A sandbox that has begun with a cache has what it has, and keeps that at its end.

EXAMPLES
   sandbox cache rm 4f1c02ab99d0
   sandbox cache rm $(sandbox cache ls -q)`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return usage("sandbox cache rm needs the id of a cache, as sandbox cache ls shows it")
			}
			store, err := openCaches()
			if err != nil {
				return err
			}
			all, err := store.List()
			known := make(map[string]cache.Key)
			for _, e := range all {
				known[e.ID()] = e.Key
			}
			errs := []error{err}
			for _, id := range c.Args().Slice() {
				key, ok := known[id]
				if !ok {
					errs = append(errs, fmt.Errorf("there is no cache %s: sandbox cache ls lists them", id))
					continue
				}
				errs = append(errs, store.Remove(key))
			}
			return errors.Join(errs...)
		},
	}
}
