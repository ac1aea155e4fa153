package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

// repository is where the tests of this package find the whole.
const repository = "../.."

// document is one page for users.
type document struct {
	path  string // from the repository
	text  string
	code  []string // lines of blocks of commands
	words []string // code within the text
}

var inlineCode = regexp.MustCompile("`([^`]+)`")

func documents(t *testing.T) []document {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(repository, "docs", "*.md"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("there are no documents: %v", err)
	}
	var docs []document
	for _, path := range append(paths, filepath.Join(repository, "README.md"), filepath.Join(repository, "CONTRIBUTING.md")) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d := document{path: strings.TrimPrefix(path, repository+"/"), text: string(data)}
		block := ""
		for line := range strings.Lines(d.text) {
			line = strings.TrimRight(line, "\n")
			fence, opens := strings.CutPrefix(line, "```")
			switch {
			case opens && block == "":
				block = fence + " " // of any language, and none
			case opens:
				block = ""
			case block == "console " || block == "sh " || block == " ":
				d.code = append(d.code, line)
			case block == "":
				for _, code := range inlineCode.FindAllStringSubmatch(line, -1) {
					d.words = append(d.words, code[1])
				}
			}
		}
		docs = append(docs, d)
	}
	return docs
}

// commandsOf are the parts of a line of shell that may each be a command.
func commandsOf(line string) []string {
	line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
	line, _, _ = strings.Cut(line, "  #")
	return regexp.MustCompile(`\s*(?:\|\||&&|;|\||\{|\$\(|\b(?:do|then|until|while|if|exec)\s)\s*`).Split(line, -1)
}

// TestDocumentedCommandsExist reads what the documents tell people to type: the
// commands, and their options, must be there.
func TestDocumentedCommandsExist(t *testing.T) {
	app := newApp()
	checked := 0
	for _, d := range documents(t) {
		for _, line := range append(slices.Clone(d.code), d.words...) {
			for _, command := range commandsOf(quoted.ReplaceAllString(line, "quoted")) {
				command = strings.TrimPrefix(command, "bin/")
				if strings.HasPrefix(command, "sandbox ") && !strings.HasPrefix(command, "sandbox COMMAND") {
					checkExample(t, app, command)
					checked++
				}
			}
		}
	}
	if checked < 100 {
		t.Errorf("only %d commands were found: the documents are not read as they are written", checked)
	}
}

// TestDocumentedOptionsExist is for options that a text names alone.
func TestDocumentedOptionsExist(t *testing.T) {
	known := map[string]bool{"help": true, "version": true, "host": true} // the last is of servers in guests
	variables := map[string]bool{}
	var visit func(commands []*cli.Command)
	visit = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				for _, name := range f.Names() {
					known[name] = true
				}
				for _, name := range f.(cli.DocGenerationFlag).GetEnvVars() {
					variables[name] = true
				}
			}
			visit(c.Subcommands)
		}
	}
	visit(newApp().Commands)
	source := sourceText(t)
	for _, d := range documents(t) {
		for _, code := range d.words {
			option, ok := strings.CutPrefix(strings.Fields(code + " .")[0], "--")
			option, _, _ = strings.Cut(option, "=")
			// Options of other programs stand in the code that uses these, or
			// in what a reader is told to type.
			if ok && option != "" && !known[option] && !strings.Contains(source, "--"+option) {
				t.Errorf("%s: no command has the option --%s", d.path, option)
			}
		}
		for _, name := range regexp.MustCompile(`SANDBOX_[A-Z_]+[A-Z]`).FindAllString(d.text, -1) {
			if !variables[name] && !strings.Contains(source, `"`+name+`"`) && !strings.Contains(source, name+"=") {
				t.Errorf("%s: nothing reads the variable %s", d.path, name)
			}
		}
	}
}

// TestDocumentedSettingsAreThose compares the table of docs/settings.md with the options.
func TestDocumentedSettingsAreThose(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "docs", "settings.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); len(cells) == 4 && strings.HasPrefix(line, "| `") {
			for _, name := range inlineCode.FindAllStringSubmatch(cells[0], -1) {
				documented[name[1]] = []string{cells[1], cells[2], strings.TrimSuffix(cells[3], " |\n")}
			}
		}
	}
	found := 0
	for _, o := range project.Options() {
		row, ok := documented[o.Name]
		if ok {
			found++
		}
		want := map[project.Trust]string{project.User: "no", project.Consent: "with your [consent](#consent)", project.Narrower: "if narrower", project.Inside: "within the project", project.Project: "yes"}[o.Trust]
		if ok != (want != "") || ok && (row[1] != want || row[2] != "yes") {
			t.Errorf("%s: documented as %q, but a project's file: %q", o.Name, row, want)
		}
		for _, value := range o.Values {
			if ok && !strings.Contains(row[0], `"`+value+`"`) {
				t.Errorf("%s: the value %q is not documented", o.Name, value)
			}
		}
	}
	if found != len(documented) {
		t.Errorf("%d settings are documented, but %d are options", len(documented), found)
	}
}

// sourceText is all that the repository's programs, recipes and tests say.
func sourceText(t *testing.T) string {
	t.Helper()
	var text strings.Builder
	err := filepath.WalkDir(repository, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "bin") {
			return fs.SkipDir
		}
		if slices.Contains([]string{".go", ".nix", ".txtar", ".sh", ".yml"}, filepath.Ext(path)) && d.Name() != "docs_test.go" || d.Name() == "Makefile" {
			data, err := os.ReadFile(path)
			text.Write(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// TestDocumentedSymptomsAreSaid compares the README's table of symptoms with
// the messages that there are.
func TestDocumentedSymptomsAreSaid(t *testing.T) {
	source := sourceText(t)
	_, table, ok := strings.Cut(documents(t)[len(documents(t))-2].text, "## When something does not work")
	table, _, end := strings.Cut(table, "\n## ")
	if !ok || !end {
		t.Fatal("README.md has no table of symptoms")
	}
	// Words of the kernel's, of libc's and of ssh's.
	others := []string{"no space left on device", "too many open files in system"}
	found := 0
	for _, message := range regexp.MustCompile(`(?m)^\| "([^"]+)"`).FindAllStringSubmatch(table, -1) {
		found++
		for part := range strings.SplitSeq(message[1], "…") {
			if part = strings.TrimSpace(part); part != "" && !slices.Contains(others, part) && !strings.Contains(source, part) {
				t.Errorf("no message says %q", part)
			}
		}
	}
	if found < 5 {
		t.Errorf("only %d symptoms were found", found)
	}
}

// TestDocumentedPlacesExist follows the links, and looks for the targets of
// make, that the documents name.
func TestDocumentedPlacesExist(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join(repository, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range documents(t) {
		for _, link := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(d.text, -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(link[1], "#")
			path := filepath.Join(repository, filepath.Dir(d.path), file)
			if file == "" {
				path = filepath.Join(repository, d.path)
			}
			target, err := os.ReadFile(path)
			if info, statErr := os.Stat(path); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil || (anchor != "" && !slices.Contains(anchors(string(target)), anchor)) {
				t.Errorf("%s: the link %s leads nowhere: %v", d.path, link[1], err)
			}
		}
		for _, line := range append(slices.Clone(d.code), d.words...) {
			for _, command := range commandsOf(line) {
				words := strings.Fields(quoted.ReplaceAllString(command, ""))
				if len(words) < 2 || words[0] != "make" || d.path == "docs/qmp.md" {
					continue
				}
				for _, target := range words[1:] {
					if regexp.MustCompile(`^[a-z][a-z0-9-]*$`).MatchString(target) && !regexp.MustCompile(`(?m)^([a-z0-9-]+ )*`+target+`( [a-z0-9-]+)*:`).Match(makefile) {
						t.Errorf("%s: %q: there is no target %s", d.path, command, target)
					}
				}
			}
		}
	}
}

// anchors are those that the headings of a page get.
func anchors(text string) []string {
	var all []string
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile("[^a-z0-9 _-]").ReplaceAllString(strings.ToLower(heading[1]), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// TestDocumentedShareRulesAreThose compares the table of docs/sharing.md with the built-in rules.
func TestDocumentedShareRulesAreThose(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "docs", "sharing.md"))
	if err != nil {
		t.Fatal(err)
	}
	var got, want []string
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); len(cells) == 4 && strings.HasPrefix(line, "| `") {
			got = append(got, strings.TrimSuffix(line, "\n"))
		}
	}
	for _, r := range rules.List() {
		names := "`" + strings.Join(r.Patterns, "` `") + "`"
		if len(r.Except) > 0 {
			names += ", except `" + strings.Join(r.Except, "` `") + "`"
		}
		want = append(want, "| `"+r.Name+"` | "+names+" | "+r.Refused+" | "+r.Reason+" |")
	}
	if !slices.Equal(got, want) {
		t.Errorf("the table of rules has to be:\n%s", strings.Join(want, "\n"))
	}
}
