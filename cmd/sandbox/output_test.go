package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// evil sets the clipboard, clears the screen in two ways and turns the text
// around, in a terminal that obeys.
const evil = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\u009b2J\u202e\x7f\rEVIL"

// TestNoCommandLetsAGuestControlTheTerminal runs every command on sandboxes, a
// project and arguments whose texts are all as a hostile guest or a stranger
// would have them.
func TestNoCommandLetsAGuestControlTheTerminal(t *testing.T) {
	e := newEvil(t)
	if out := e.output(t, "ls"); !strings.Contains(out, `\x1b]52;c;`) || !strings.Contains(out, `\u202e`) {
		t.Errorf("the reason of a crash is not shown:\n%s", out)
	}
	if out := e.output(t, "logs", "--raw", "work"); out != evil {
		t.Errorf("the raw log is %q, want %q", out, evil)
	}
	if out := e.output(t, "logs", "work"); !strings.Contains(out, "EVIL") {
		t.Errorf("the log is %q", out)
	}
	var info machine.Info
	if err := json.Unmarshal([]byte(e.output(t, "inspect", "work")), &info); err != nil || info.State.Reason != evil {
		t.Errorf("inspect gives the reason %q (%v), want %q", info.State.Reason, err, evil)
	}
	var last [][]string // what removes things
	for _, args := range leafCommands(newApp().Commands, nil) {
		name := strings.Join(args, " ")
		switch name {
		case "events", "image build", "login codex", "login gemini": // below; would use the network; wait for a browser
			continue
		case "rm", "prune", "image gc", "image rm":
			last = append(last, args)
			continue
		}
		e.try(t, args)
	}
	for _, args := range [][]string{
		{"ls", "--json"},
		{"ls", "--filter", evil},
		{"inspect", "--qemu", "work"},
		{"inspect", "work", "wreck"},
		{"logs", "--of", "supervisor", "work"},
		{"logs", "--of", "qemu", "work"},
		{"logs", "--of", "virtiofsd", "work"},
		{"logs", "--of", evil, "work"},
		{"stats", "--json", "work"},
		{"image", "ls", "--json"},
		{"image", "build", evil},
		{"run", "--share", evil},
		{"run", "--" + evil},
	} {
		e.check(t, args)
	}
	e.events(t)
	for _, toml := range []string{`"` + evil + `" = 1`, `image = "` + jsonEscaped(evil) + `"`, `flake = ".#` + jsonEscaped(evil) + `"`, `share = ["` + jsonEscaped(evil) + `"]`, `memory = "` + jsonEscaped(evil) + `"`, `allow = "` + jsonEscaped(evil) + `"`, "publish = \"1:1\"\nallow = \"https://a.example/" + jsonEscaped(evil) + `"`} {
		e.project(t, toml)
		e.check(t, []string{"config"})
		e.check(t, []string{"run"})
		e.check(t, []string{"trust", "--force"})
	}
	for _, args := range last {
		e.try(t, args)
	}
}

// leafCommands are the commands that do something, as argument lists.
func leafCommands(commands []*cli.Command, before []string) (all [][]string) {
	for _, c := range commands {
		args := append(slices.Clone(before), c.Name)
		if len(c.Subcommands) > 0 {
			all = append(all, leafCommands(c.Subcommands, args)...)
		} else {
			all = append(all, args)
		}
	}
	return all
}

// jsonEscaped is s as it stands in a string of JSON or TOML.
func jsonEscaped(s string) string {
	text, _ := json.Marshal(s)
	return string(text[1 : len(text)-1])
}

// evilHost is a user whose sandboxes were a hostile guest's.
type evilHost struct {
	bin, dir string
	env      []string
}

func newEvil(t *testing.T) *evilHost {
	t.Helper()
	root := t.TempDir()
	e := &evilHost{bin: filepath.Join(buildBinaries(t), "sandbox"), dir: filepath.Join(root, "project")}
	runtime, err := os.MkdirTemp("", "sb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	values := map[string]string{"HOME": filepath.Join(root, "home"), "XDG_RUNTIME_DIR": runtime, "PATH": os.Getenv("PATH")}
	for name, dir := range map[string]string{"XDG_DATA_HOME": "data", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache"} {
		values[name] = filepath.Join(root, dir)
	}
	for name, value := range values {
		e.env = append(e.env, name+"="+value)
	}
	dirs, err := layout.DefaultDirs(func(name string) string { return values[name] }, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	host, err := machine.OpenHost(dirs)
	if err != nil {
		t.Fatal(err)
	}
	share := filepath.Join(e.dir, evil)
	damaged := filepath.Join(dirs.Images(), "evil"+strings.ReplaceAll(evil, "/", "")+"@0123456789ab")
	for _, dir := range []string{filepath.Join(root, "home"), share, damaged} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"work", "wreck"} {
		s, err := host.Create(machine.Config{
			Name: name,
			Hardware: machine.Hardware{
				Image: image.Ref{Name: "evil" + evil, Digest: strings.Repeat("0", 64)}, MemoryMiB: 512, CPUs: 1,
				Network: network.ModeUser, Transport: agent.TransportAuto,
			},
			Access: machine.Access{Shares: []virtiofs.Share{{Source: share, Target: "/" + evil}}},
			Life:   machine.Life{ReadyTimeout: time.Minute},
		})
		if err != nil {
			t.Fatal(err)
		}
		e.spoil(t, s, filepath.Join(dirs.State, name))
	}
	write(t, filepath.Join(dirs.State, "wreck", "config.json"), `{"`+evil+`": 1}`)
	return e
}

// spoil writes what a guest has a say in.
func (e *evilHost) spoil(t *testing.T, s *machine.Sandbox, dir string) {
	t.Helper()
	state, err := json.Marshal(machine.State{
		Status: machine.StatusCrashed, Reason: evil, Accel: evil, AccelNote: evil, Machine: evil, QEMUVer: evil, Argv: []string{"qemu", evil},
		System: evil, Failed: []string{evil}, Timings: []machine.Timing{{Stage: evil}},
	})
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "state.json"), string(state))
	for _, name := range []string{layout.ConsoleLog, layout.SupervisorLog, layout.QEMULog, layout.VirtiofsdLog, layout.NetworkLog, layout.AuditLog} {
		write(t, s.Files().Log(name), evil)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (e *evilHost) project(t *testing.T, toml string) {
	t.Helper()
	write(t, filepath.Join(e.dir, project.FileName), toml)
}

func (e *evilHost) command(args ...string) *exec.Cmd {
	cmd := exec.Command(e.bin, args...)
	cmd.Env, cmd.Dir = e.env, e.dir
	return cmd
}

func (e *evilHost) output(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.command(args...).Output()
	if err != nil {
		t.Errorf("sandbox %q: %v", args, err)
	}
	return string(out)
}

// try runs a command with the arguments that it could be about.
func (e *evilHost) try(t *testing.T, command []string) {
	t.Helper()
	for _, args := range [][]string{nil, {"work"}, {"wreck"}, {"./" + evil}, {"work", evil}, {"--" + evil}} {
		if strings.Join(command, " ") == "run" && args == nil { // below, with a project
			continue
		}
		e.check(t, append(slices.Clone(command), args...))
	}
}

// check runs a command, which may fail, but not hand on what is evil.
func (e *evilHost) check(t *testing.T, args []string) {
	t.Helper()
	out, _ := e.command(args...).CombinedOutput()
	if bad := obeyed(out); bad != "" {
		t.Errorf("sandbox %q prints %s:\n%q", args, bad, out)
	}
}

// obeyed is what a terminal would obey in a text, or empty.
func obeyed(text []byte) string {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if (r == utf8.RuneError && size == 1) || (r != '\n' && r != '\t' && !unicode.IsGraphic(r)) {
			return fmt.Sprintf("%q", text[:size])
		}
		text = text[size:]
	}
	return ""
}

// events reads the first line of each sandbox, as the rest never ends.
func (e *evilHost) events(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cmd := exec.CommandContext(ctx, e.bin, "events")
	cmd.Env = e.env
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 2 {
		if !lines.Scan() {
			t.Fatal("events has ended")
		}
		if bad := obeyed(lines.Bytes()); bad != "" {
			t.Errorf("events prints %s: %q", bad, lines.Text())
		}
	}
	cancel()
	_ = cmd.Wait() // it was killed
}

// TestOnlyStreamsReachTheTerminalUnfiltered finds what is written past results and
// notes. Who adds to the list says what it is that may pass.
func TestOnlyStreamsReachTheTerminalUnfiltered(t *testing.T) {
	allowed := map[string]int{
		"command.go":    3, // the command's own streams
		"console.go":    3, // the console, and words of ours in raw mode
		"cp.go":         1, // an archive
		"detach.go":     1, // words of ours in raw mode
		"gitremote.go":  1, // Git's protocol, of which what Git shows is filtered
		"imagebuild.go": 2, // package progress filters
		"imagedir.go":   1, // package progress filters
		"output.go":     2,
		"qmp.go":        1, // QEMU's monitor, for a program
		"mount.go":      1, // the width of the terminal
		"qmp_prompt.go": 1, // the prompt, which draws itself
		"run.go":        1, // package progress filters
		"show.go":       2, // logs --raw, and the width of the terminal
		"smoke.go":      2, // package progress filters
		"ssh.go":        1, // ssh's protocol
		"stats.go":      1, // clears the screen
		"workspace.go":  2, // diff --tool, whose program is the user's choice
	}
	files, err := fs.Glob(os.DirFS("."), "*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if found := rawUses(parsed); found != allowed[file] {
			t.Errorf("%s writes to standard output or standard error in %d places without the filter of output.go, and may in %d", file, found, allowed[file])
		}
	}
}

// rawUses counts where a file hands on its standard streams, other than to ask
// what they are.
func rawUses(file *ast.File) int {
	count := 0
	ast.Inspect(file, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && asks(call) {
			return false
		}
		switch selector, ok := n.(*ast.SelectorExpr); {
		case !ok:
		case isSelector(selector, "os", "Stdout", "Stderr"), isSelector(selector, "fmt", "Print", "Printf", "Println"):
			count++
		}
		return true
	})
	return count
}

// asks recognises isTerminal(os.Stdout) and os.Stdout.Fd().
func asks(call *ast.CallExpr) bool {
	if name, ok := call.Fun.(*ast.Ident); ok {
		return name.Name == "isTerminal"
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	return ok && method.Sel.Name == "Fd"
}

func isSelector(s *ast.SelectorExpr, of string, names ...string) bool {
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == of && slices.Contains(names, s.Sel.Name)
}
