package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"
)

const (
	helpWidth  = 80 // of the terminals that help has to fit
	helpIndent = "   "

	// Where explanations begin: of commands, and of options.
	commandColumn = 20
	optionColumn  = 29
)

// helpText is what --help prints for a command, or for the program itself.
func helpText(c *cli.Command) string {
	var b strings.Builder
	b.WriteString(fill(fmt.Sprintf("%s - %s", c.HelpName, c.Usage), "", helpIndent))
	b.WriteString("\nUSAGE\n" + fill(usageLine(c), helpIndent, helpIndent+helpIndent))
	if c.Description != "" {
		b.WriteString("\n" + reflow(c.Description))
	}
	for _, category := range categories(c.Subcommands) {
		fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(category))
		for _, sub := range c.Subcommands {
			if sub.Category == category && !sub.Hidden {
				b.WriteString(entry(commandColumn, strings.Join(sub.Names(), ", "), sub.Usage))
			}
		}
	}
	b.WriteString("\nOPTIONS\n")
	for _, f := range c.Flags {
		if visible, ok := f.(cli.VisibleFlag); !ok || visible.IsVisible() {
			name, explanation := describeFlag(f)
			b.WriteString(entry(optionColumn, name, explanation))
		}
	}
	b.WriteString(entry(optionColumn, "-h, --help", "show this help"))
	return b.String()
}

func usageLine(c *cli.Command) string {
	if len(c.Subcommands) > 0 {
		return c.HelpName + " COMMAND [OPTIONS] [ARGUMENTS]"
	}
	return strings.TrimSpace(c.HelpName + " [OPTIONS] " + c.ArgsUsage)
}

// categories are those of the commands that are shown, in the order in which
// they come.
func categories(commands []*cli.Command) []string {
	var all []string
	for _, c := range commands {
		if !c.Hidden && !slices.Contains(all, c.Category) {
			all = append(all, c.Category)
		}
	}
	return all
}

// entry is a name and its explanation beside it, or below it if it is long.
func entry(column int, name, explanation string) string {
	indent := strings.Repeat(" ", column)
	head := helpIndent + name
	if len(head) > column-2 {
		return head + "\n" + fill(explanation, indent, indent)
	}
	return fill(explanation, fmt.Sprintf("%-*s", column, head), indent)
}

// describeFlag is an option's names with its value, and what it does.
func describeFlag(f cli.Flag) (name, explanation string) {
	for _, n := range slices.Backward(f.Names()) { // the short ones come first
		hyphens := "--"
		if len(n) == 1 {
			hyphens = "-"
		}
		name += hyphens + n + ", "
	}
	name = strings.TrimSuffix(name, ", ")
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return name, ""
	}
	explanation = documented.GetUsage()
	if documented.TakesValue() {
		value := "VALUE"
		if before, quoted, ok := strings.Cut(explanation, "`"); ok {
			if in, after, ok := strings.Cut(quoted, "`"); ok {
				value, explanation = in, before+in+after
			}
		}
		name += " " + value
		if text := documented.GetDefaultText(); text != "" && text != "0" && !strings.Contains(explanation, "(default: ") {
			explanation += " (default: " + strings.Trim(text, `"`) + ")"
		}
	}
	if env := documented.GetEnvVars(); len(env) > 0 {
		explanation += " [$" + strings.Join(env, ", $") + "]"
	}
	return name, explanation
}

// reflow fills the paragraphs of a text. Indented lines stay as they are.
func reflow(text string) string {
	var b strings.Builder
	var paragraph []string
	flush := func() {
		if len(paragraph) > 0 {
			b.WriteString(fill(strings.Join(paragraph, " "), "", ""))
			paragraph = nil
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line != "" && line[0] != ' ' {
			paragraph = append(paragraph, line)
			continue
		}
		flush()
		b.WriteString(line + "\n")
	}
	flush()
	return b.String()
}

// fill breaks a text into lines of helpWidth, the first of which begins with
// first and the others with indent.
func fill(text, first, indent string) string {
	var b strings.Builder
	line, empty := first, true
	for word := range strings.FieldsSeq(text) {
		if !empty && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > helpWidth {
			b.WriteString(line + "\n")
			line, empty = indent, true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}
