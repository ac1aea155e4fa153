package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/virtiofs"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

func shareRulesCommand() *cli.Command {
	return &cli.Command{
		Name:      "rules",
		Usage:     "show what guests cannot write, or read, in shared directories",
		ArgsUsage: "[NAME]",
		Description: `Without a name, these are the rules that each share has, unless its options say otherwise:
rules=none for none of them, allow=PATTERN for exceptions, refuse=PATTERN and hide=PATTERN
for more. With the name of a sandbox, it is what its shares have. In a pattern, ** stands
for any number of directories, and upper case is as lower case.

EXAMPLES
   sandbox share rules
   sandbox share rules work
   sandbox run --share '.:allow=.husky/**'`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print them as JSON"}},
		OnUsageError: usageError,
		Action:       shareRules,
	}
}

func shareRules(c *cli.Context) error {
	if c.NArg() == 0 {
		if c.Bool("json") {
			return printJSON(c.App.Writer, rules.List())
		}
		writeRules(c.App.Writer, rules.List())
		return nil
	}
	s, err := named(c)
	if err != nil {
		return err
	}
	config, err := s.Config()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		shares := []ruledShare{}
		for _, share := range config.Shares {
			shares = append(shares, ruledShare{share.Source, share.Target, share.ReadOnly, share.Rules})
		}
		return printJSON(c.App.Writer, shares)
	}
	if len(config.Shares) == 0 {
		fmt.Fprintf(c.App.Writer, "%s has no shares.\n", s.Name)
		return nil
	}
	t := table{rows: [][]string{{"SHARE", "IN THE GUEST", "RULES"}}}
	for _, share := range config.Shares {
		t.rows = append(t.rows, []string{share.Source, share.Target, rulesOfShare(share)})
	}
	return t.write(c.App.Writer, 0)
}

// ruledShare is a share in JSON, with what was chosen for it.
type ruledShare struct {
	Source   string       `json:"source"`
	Target   string       `json:"target"`
	ReadOnly bool         `json:"readOnly"`
	Rules    rules.Choice `json:"rules"`
}

func rulesOfShare(s virtiofs.Share) string {
	if s.Clone != "" {
		return "a clone, and its origin (read-only: nothing but objects, branches and HEAD can be read)"
	}
	if s.Objects {
		return "objects of Git (read-only: nothing else can be read)"
	}
	options := s.Rules.Options()
	if !s.Rules.None {
		options = append([]string{"rules=safe"}, options...)
	}
	text := strings.Join(options, " ")
	if s.ReadOnly {
		text += " (read-only: what is for reading counts)"
	}
	return text
}

// writeRules writes each rule with its patterns.
func writeRules(w io.Writer, list []rules.Rule) {
	for i, r := range list {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintln(w, r.Name)
		indented := func(text string) { fmt.Fprint(w, fill(text, "   ", "   ")) }
		indented(fmt.Sprintf("The guest cannot %s: %s.", r.Refused, r.Reason))
		indented(strings.Join(r.Patterns, " "))
		if len(r.Except) > 0 {
			indented("except " + strings.Join(r.Except, " "))
		}
	}
}
