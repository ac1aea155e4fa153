package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// Options may stand before, between and after a command's arguments, as people
// write them. The library that parses them stops at the first argument, so the
// words are put in its order before it sees them.

// passage is where the words of a command begin to be another program's, which
// are passed on as they are.
type passage struct {
	after int // this many arguments of the command's own
	// options tells that the command's options, and "--", may stand right
	// before the other program's words. Without, its first word may be an option.
	options bool
}

// passesOn are the commands that have another program's words.
var passesOn = map[string]passage{
	"run":  {after: 0, options: true},
	"exec": {after: 1, options: true},
	"ssh":  {after: 1},
	"try":  {after: 1, options: true},
}

// commandLine is what the words of a command line ask for.
type commandLine struct {
	words []string // for the library, the program's name first
	help  *cli.Command
}

// arrange finds the command that the words name, and puts its options before
// its arguments.
func arrange(app *cli.App, words []string) commandLine {
	command := root(app)
	rest := words[min(1, len(words)):]
	help := len(rest) > 0 && rest[0] == "help"
	if help {
		rest = rest[1:]
	}
	for len(rest) > 0 && len(command.Subcommands) > 0 {
		i := slices.IndexFunc(command.Subcommands, func(c *cli.Command) bool { return c.HasName(rest[0]) })
		if i < 0 {
			break
		}
		command, rest = command.Subcommands[i], rest[1:]
	}
	if slices.Contains(rest, completionWord) { // the library's own, which it looks for at the end
		return commandLine{words: words}
	}
	options, arguments, asked := split(command, rest)
	switch {
	case asked, help && (len(rest) == 0 || len(command.Subcommands) == 0):
		return commandLine{help: command}
	case help: // about a command that there is not
		return commandLine{words: append(words[:1:1], words[2:]...)}
	}
	arranged := append(slices.Clone(words[:len(words)-len(rest)]), options...)
	if len(arguments) > 0 {
		arranged = append(append(arranged, "--"), arguments...)
	}
	return commandLine{words: arranged}
}

// completionWord is what the library's scripts for shells add to a command line.
const completionWord = "--generate-bash-completion"

// root is the program as a command.
func root(app *cli.App) *cli.Command {
	return &cli.Command{
		Name: app.Name, HelpName: app.Name, Usage: app.Usage, Description: app.Description,
		Subcommands: app.Commands, Flags: []cli.Flag{cli.VersionFlag},
	}
}

// split tells a command's options, with their values, from its arguments and
// from what it passes on; help tells that an option asks for help. An option
// that lacks its value comes alone, for the error to be about it.
func split(command *cli.Command, words []string) (options, arguments []string, help bool) {
	passed, passes := passesOn[command.Name]
	ended := false
	for len(words) > 0 {
		word := words[0]
		own := !passes || len(arguments) < passed.after
		switch {
		case !own && !passed.options:
			return options, append(arguments, words...), false
		case !own && word == "--":
			return options, append(arguments, words[1:]...), false
		case !ended && word == "--":
			ended, words = true, words[1:]
		case !ended && isOption(word):
			if isHelp(word) {
				return nil, nil, true
			}
			n := 1
			if takesNext(command, word) {
				n = 2
			}
			if n > len(words) {
				return words, nil, false
			}
			options, words = append(options, words[:n]...), words[n:]
		case !own:
			return options, append(arguments, words...), false
		default:
			arguments, words = append(arguments, word), words[1:]
		}
	}
	return options, arguments, false
}

// given lists the options, by all of their names, that the command line itself has
// and not only the environment, which the library tells apart no more.
func given(c *cli.Context) []string {
	lineage := c.Lineage()
	if len(lineage) < 2 {
		return nil
	}
	var names []string
	options, _, _ := split(c.Command, lineage[1].Args().Tail())
	for ; len(options) > 0; options = options[1:] {
		name, _, _ := strings.Cut(strings.TrimLeft(options[0], "-"), "=")
		if takesNext(c.Command, options[0]) {
			options = options[1:]
		}
		if flag := findFlag(c.Command, name); flag != nil {
			names = append(names, flag.Names()...)
			continue
		}
		for _, letter := range name { // several of one letter each
			if flag := findFlag(c.Command, string(letter)); flag != nil {
				names = append(names, flag.Names()...)
			}
		}
	}
	return names
}

// isOption: a single hyphen stands for standard input or output.
func isOption(word string) bool { return len(word) > 1 && word[0] == '-' }

func isHelp(word string) bool {
	return slices.Contains([]string{"-h", "--h", "-help", "--help"}, word)
}

// takesNext reports whether the word after an option is its value.
func takesNext(command *cli.Command, option string) bool {
	name := strings.TrimPrefix(strings.TrimPrefix(option, "-"), "-")
	if flag := findFlag(command, name); flag != nil {
		return takesValue(flag)
	}
	if strings.HasPrefix(option, "--") {
		return false
	}
	// Several of one letter each, of which the last may have a value.
	last := findFlag(command, name[len(name)-1:])
	return last != nil && takesValue(last)
}

func findFlag(command *cli.Command, name string) cli.Flag {
	i := slices.IndexFunc(command.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil
	}
	return command.Flags[i]
}

func takesValue(f cli.Flag) bool {
	documented, ok := f.(cli.DocGenerationFlag)
	return ok && documented.TakesValue()
}
