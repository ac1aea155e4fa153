package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"
)

// lister is the ls of a command whose things are in a table, or in a JSON array.
type lister[T any] struct {
	of      string // the command's name
	usage   string
	list    func() ([]T, error) // with an error, those that could be read all the same
	columns []string
	row     func(T) []string
	id      func(T) string // by which rm knows them, for --quiet; nil: they are typed
}

func (l lister[T]) command() *cli.Command {
	flags := []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print a JSON array"}}
	if l.id != nil {
		flags = append(flags, &cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print ids only"})
	}
	return &cli.Command{
		Name:    "ls",
		Aliases: []string{"list"},
		Usage:   l.usage,
		Description: fmt.Sprintf(`EXAMPLES
   sandbox %[1]s ls
   sandbox %[1]s ls --json`, l.of),
		Flags:        flags,
		OnUsageError: usageError,
		Action:       l.action,
	}
}

func (l lister[T]) action(c *cli.Context) error {
	all, err := l.list()
	switch {
	case err != nil && len(all) == 0:
		return err
	case c.Bool("json"):
		return errors.Join(printJSON(c.App.Writer, all), err)
	case c.Bool("quiet"):
		for _, one := range all {
			fmt.Fprintln(c.App.Writer, l.id(one))
		}
		return err
	}
	t := table{rows: [][]string{l.columns}}
	for _, one := range all {
		t.rows = append(t.rows, l.row(one))
	}
	return errors.Join(t.write(c.App.Writer, 0), err)
}
