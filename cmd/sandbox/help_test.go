package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

// TestHelpFitsItsTerminal reads the help of the program and of all its commands.
func TestHelpFitsItsTerminal(t *testing.T) {
	app := newApp()
	var visit func(c *cli.Command)
	visit = func(c *cli.Command) {
		text := helpText(c)
		for line := range strings.Lines(text) {
			if line = strings.TrimSuffix(line, "\n"); utf8.RuneCountInString(line) > 80 {
				t.Errorf("%s: a line of %d characters: %s", c.HelpName, utf8.RuneCountInString(line), line)
			}
		}
		for _, f := range c.Flags {
			if v, ok := f.(cli.VisibleFlag); (!ok || v.IsVisible()) != strings.Contains(text, " --"+f.Names()[0]) {
				t.Errorf("%s: --%s is not shown, or is although it is hidden", c.HelpName, f.Names()[0])
			}
		}
		for _, sub := range c.Subcommands {
			if sub.Hidden == strings.Contains(text, "\n   "+strings.Join(sub.Names(), ", ")+" ") {
				t.Errorf("%s: %s is not shown, or is although it is hidden", c.HelpName, sub.Name)
			}
			if sub.Category == "" {
				t.Errorf("%s is in no group", sub.HelpName)
			}
			visit(sub)
		}
	}
	visit(root(app))
}

// TestEveryCommandHasExamplesThatExist reads the help as its users do: each
// command shows how it is used, by commands and options that there are.
func TestEveryCommandHasExamplesThatExist(t *testing.T) {
	app := newApp()
	var visit func(prefix string, commands []*cli.Command)
	visit = func(prefix string, commands []*cli.Command) {
		for _, c := range commands {
			name := prefix + " " + c.Name
			if c.Hidden {
				continue
			}
			visit(name, c.Subcommands)
			_, examples, ok := strings.Cut("\n"+c.Description, "\nEXAMPLES\n")
			if !ok && len(c.Subcommands) == 0 {
				t.Errorf("%s has no examples", name)
			}
			if ok && !strings.Contains(examples, name) {
				t.Errorf("no example of %s runs it:\n%s", name, examples)
			}
			for line := range strings.Lines(examples) {
				checkExample(t, app, strings.TrimSpace(line))
			}
		}
	}
	visit(app.Name, app.Commands)
	for line := range strings.Lines(app.Description) {
		if strings.HasPrefix(line, "   ") {
			checkExample(t, app, strings.TrimSpace(line))
		}
	}
}

// quoted is what a shell makes one word of.
var quoted = regexp.MustCompile(`'[^']*'|"[^"]*"|\$\([^)]*\)`)

// checkExample looks for the command and the options of a line that runs the
// program; in others, such as one of ssh, there is nothing to look for.
func checkExample(t *testing.T, app *cli.App, line string) {
	t.Helper()
	said, _, _ := strings.Cut(line, "  ") // what follows explains it
	words := strings.Fields(quoted.ReplaceAllString(said, "quoted"))
	if i := slices.Index(words, app.Name); i >= 0 && (i == 0 || words[i-1] == "|") {
		words = words[i+1:]
	} else {
		return
	}
	command := &cli.Command{Name: app.Name, Subcommands: app.Commands}
	for len(words) > 0 && len(command.Subcommands) > 0 {
		i := slices.IndexFunc(command.Subcommands, func(c *cli.Command) bool { return c.HasName(words[0]) })
		if i < 0 {
			t.Errorf("%q: %s has no command %s", line, command.Name, words[0])
			return
		}
		command, words = command.Subcommands[i], words[1:]
	}
	arguments := 0
	for _, word := range words {
		option := strings.TrimLeft(word, "-")
		switch {
		case slices.Contains([]string{"--", "|", "||", "&&", ">"}, word):
			return
		case option == "" || option == word:
			arguments++
			continue
		case command.Name == "ssh" && arguments > 0: // ssh's own
			return
		}
		known := func(f cli.Flag) bool { return slices.Contains(f.Names(), option) }
		if option != "help" && !slices.ContainsFunc(command.Flags, known) {
			t.Errorf("%q: sandbox %s has no option %s", line, command.Name, word)
		}
	}
}
