package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
)

func TestErrorsSayWhatToDo(t *testing.T) {
	running := errors.New("the sandbox a is running")
	several := remedy.Add(remedy.Add(running, remedy.Stop, "a"), remedy.RemoveNow, "a")
	none := errors.New("nothing helps")
	for want, err := range map[string]error{
		"nothing helps": none,
		"the sandbox a is running: stop it first (sandbox stop a), or remove it at once (sandbox rm --force a)":                          several,
		"doing it: the sandbox a is running: stop it first (sandbox stop a)":                                                             fmt.Errorf("doing it: %w", remedy.Add(running, remedy.Stop, "a")),
		"one: restart it (sandbox restart a)\nnothing helps\ntwo: sandbox ls shows those that exist":                                     errors.Join(remedy.Add(errors.New("one"), remedy.Restart, "a"), none, remedy.Add(errors.New("two"), remedy.List)),
		"one and two: restart it (sandbox restart a), or sandbox ls shows those that exist":                                              fmt.Errorf("%w and %w", remedy.Add(errors.New("one"), remedy.Restart, "a"), remedy.Add(errors.New("two"), remedy.List)),
		"moved\nPut back what was there; or, if you want the guest to have what is there now: sandbox share accept a '/it'\"'\"'s here'": remedy.Add(errors.New("moved"), remedy.AcceptShare, "a", "/it's here"),
		"three: restart it (sandbox restart a)\nfour":                                                                                    usage("%w", errors.Join(remedy.Add(errors.New("three"), remedy.Restart, "a"), errors.New("four"))),
		"once: restart it (sandbox restart a)":                                                                                           remedy.Add(remedy.Add(errors.New("once"), remedy.Restart, "a"), remedy.Restart, "a"),
		"from the supervisor: start it with sandbox start a":                                                                             &api.Error{Message: "from the supervisor", Remedy: []api.Remedy{{Do: remedy.Start, Args: []string{"a"}}}},
		"from a newer one": &api.Error{Message: "from a newer one", Remedy: []api.Remedy{{Do: "pray"}, {Do: remedy.AcceptShare}}},
	} {
		if got := sentences(err); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

// literals calls found with each string of the files in dir and below, which are
// programs of this module, and no tests.
func literals(t *testing.T, dir string, found func(at token.Position, text string)) {
	t.Helper()
	parseAll(t, dir, func(files *token.FileSet, file *ast.File) {
		ast.Inspect(file, func(n ast.Node) bool {
			if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
				text, err := strconv.Unquote(literal.Value)
				if err != nil {
					t.Error(err)
				}
				found(files.Position(literal.Pos()), text)
			}
			return true
		})
	})
}

// TestRemediesAreCommandsAndOptionsThatExist reads the words for each remedy.
func TestRemediesAreCommandsAndOptionsThatExist(t *testing.T) {
	actions := 0
	literals(t, filepath.Join(repository, "internal", "remedy"), func(at token.Position, text string) {
		if regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(text) && text != "strings" {
			actions++
			if words[remedy.Action(text)] == "" {
				t.Errorf("%s: there are no words for %s", at, text)
			}
		}
	})
	if actions != len(words) {
		t.Errorf("%d remedies have words, but there are %d", len(words), actions)
	}
	app := newApp()
	for action, text := range words {
		for _, command := range regexp.MustCompile("sandbox [a-z][^,;:()`\n]*").FindAllString(text, -1) {
			command = strings.ReplaceAll(command, "login %[1]s", "login claude") // the names are commands
			command = regexp.MustCompile(`%\[\d\]s`).ReplaceAllString(command, "X")
			words := strings.Fields(strings.ReplaceAll(command, "--X", "--memory"))
			if slices.Contains([]string{"can", "and", "all"}, words[1]) { // no command, but what is meant
				continue
			}
			if !slices.ContainsFunc(app.Commands, func(c *cli.Command) bool { return c.HasName(words[1]) }) {
				t.Errorf("%s: there is no command %q", action, command)
				continue
			}
			checkExample(t, app, strings.Join(words, " "))
		}
	}
}

// optionsAndCommands are what libraries leave to the words of this program.
var optionsAndCommands = regexp.MustCompile("(^|[ (`])--[a-z][a-z-]+|\\bsandbox (attach|config|cp|doctor|events|exec|fork|image|inspect|kill|logs|ls|pause|prune|qmp|rename|reset|resize|restart|resume|rm|run|share|smoke|snapshot|ssh|start|stats|stop|wait)\\b")

// TestLibrariesNameNoOptionsAndCommands looks for both in what libraries say.
// Other front ends have other ones, so they are values there (internal/remedy).
func TestLibrariesNameNoOptionsAndCommands(t *testing.T) {
	ours := map[string]bool{}
	var visit func(commands []*cli.Command)
	visit = func(commands []*cli.Command) {
		for _, c := range commands {
			for _, f := range c.Flags {
				for _, name := range f.Names() {
					ours["--"+name] = true
				}
			}
			visit(c.Subcommands)
		}
	}
	visit(newApp().Commands)
	// What still does, with how often, and what may.
	left := map[string]int{
		"agent/guest/disk.go":           2, // a guest has no values to send for them yet
		"agent/server/process.go":       1, // on the standard error of a command
		"machine/events.go":             2,
		"machine/smoke/artifacts.go":    1,
		"machine/smoke/boot.go":         1,
		"machine/smoke/check.go":        1,
		"machine/smoke/custom.go":       1,
		"machine/smoke/print.go":        1,
		"machine/smoke/smoke.go":        3,
		"machine/supervisor/balloon.go": 2,
		"machine/supervisor/boot.go":    1,
		"machine/supervisor/ending.go":  1,
		"machine/supervisor/pause.go":   1,
		"machine/supervisor/resize.go":  1,
		"machine/supervisor/save.go":    1,
		"machine/supervisor/shares.go":  2,
		"machine/supervisor/walls.go":   1,
		"machine/project/options.go":    1, // the table of the options themselves
	}
	found := map[string]int{}
	for _, dir := range []string{"agent", "image", "machine", "network", "qemu", "qmp", "virtiofs", "internal/confine", "internal/hostdir", "internal/trust"} {
		literals(t, filepath.Join(repository, dir), func(at token.Position, text string) {
			file := strings.TrimPrefix(at.Filename, repository+"/")
			for _, match := range optionsAndCommands.FindAllString(text, -1) {
				option := strings.TrimLeft(match, " (`")
				// Options of programs that a library runs are words of their own, or in a list or script.
				if strings.HasPrefix(option, "--") && (!ours[option] || match == text || strings.Contains(text, "=") || strings.HasPrefix(text, "systemctl ")) {
					continue
				}
				if found[file]++; found[file] > left[file] {
					t.Errorf("%s says %q: say what to do by package remedy", at, match)
				}
				break
			}
		})
	}
	for file, most := range left {
		if found[file] < most {
			t.Errorf("%s has %d of %d: take what is done off the list", file, found[file], most)
		}
	}
}
