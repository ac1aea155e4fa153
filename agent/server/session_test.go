//go:build linux

package server_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/server"
)

func TestArgumentsArriveExactly(t *testing.T) {
	f := newFixture(t)
	args := []string{
		"", " ", "a b", "'", `"`, `\`, "$HOME", "`id`", "*", "~", "-n", "--", "\n", "\t", ";", "&&", "|",
		"ünïcödé", "\xff\xfe not UTF-8 \x80", "\x01\x1b[0m", "<&>", "\u2028", strings.Repeat("x", 100_000),
	}
	out, err := f.Client(t).Command(t.Context(), append([]string{"printf", `%s\0`}, args...)...).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if !slices.Equal(got, args) {
		t.Errorf("got %q, want %q", got, args)
	}
}

func TestArgumentsPassALoginShellExactly(t *testing.T) {
	f := newFixture(t)
	script(t, f, ".profile", "export FROM_PROFILE=yes\n", 0o600)
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", `printf '%s,' "$FROM_PROFILE" "$@"`, "sh", "a b", "$HOME", "'")
	cmd.Login = true
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := "yes,a b,$HOME,',"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestWithoutArgumentsTheLoginShellRuns(t *testing.T) {
	f := newFixture(t)
	script(t, f, ".profile", "echo profile\n", 0o600)
	cmd := f.Client(t).Command(t.Context())
	cmd.Stdin = strings.NewReader("echo \"$0\"\nexit 3\n")
	out, err := cmd.Output()
	mustExit(t, err, 3)
	if want := "profile\n-sh\n"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestEnvironmentOfACommand(t *testing.T) {
	f := newFixture(t)
	f.Config.Env = func(context.Context, server.User) []string { return []string{"FROM_BOOT=boot", "OVERRIDDEN=boot"} }
	program, err := exec.LookPath("env")
	if err != nil {
		t.Fatal(err)
	}
	cmd := f.Client(t).Command(t.Context(), program, "-0")
	cmd.Env = []string{"OVERRIDDEN=command", "NEW=a=b\nc", "ODD=\xff"}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	env := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	for _, want := range []string{
		"HOME=" + f.Home, "USER=agent", "LOGNAME=agent", "SHELL=/bin/sh", "LANG=C.UTF-8",
		"FROM_BOOT=boot", "OVERRIDDEN=command", "NEW=a=b\nc", "ODD=\xff",
	} {
		if !slices.Contains(env, want) {
			t.Errorf("%q is not in the environment %q", want, env)
		}
	}
	for _, setting := range env {
		if path, ok := strings.CutPrefix(setting, "PATH="); ok {
			contains(t, path, f.Home+"/.local/bin:/usr/local/sbin:/usr/local/bin:")
		}
		if strings.HasPrefix(setting, "TERM=") || strings.HasPrefix(setting, "GOCOVERDIR=") {
			t.Errorf("%q has no business in the environment", setting)
		}
	}
}

func TestSettingsOfTheHostsOwnLocaleAreNotTakenOver(t *testing.T) {
	f := newFixture(t)
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", `echo "$LANG $LC_ALL $LC_TIME"`)
	cmd.Env = []string{"LANG=xx_YY.UTF-8", "LC_ALL=xx_YY.UTF-8", "LC_TIME=C"}
	if out, err := cmd.Output(); err != nil || string(out) != "C.UTF-8  C\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestArgumentsAsLongAsTheKernelTakesThem(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	// 1.5 MiB, of the 2 that the usual limit of the stack allows, and bytes
	// that are several times as long on their way.
	args := []string{"sh", "-c", `printf %s "$@" "$V1" "$V2" | cksum`, "sh"}
	var env []string
	all := ""
	for i := range 13 {
		args = append(args, strings.Repeat(string(rune(1+i)), 120_000))
		all += args[len(args)-1]
	}
	for i := range 2 {
		value := strings.Repeat("\xff", 1000)
		env = append(env, fmt.Sprintf("V%d=%s", i+1, value))
		all += value
	}
	cmd := client.Command(t.Context(), args...)
	cmd.Env = env
	got, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	sum := client.Command(t.Context(), "cksum")
	sum.Stdin = strings.NewReader(all)
	if want, err := sum.Output(); err != nil || !bytes.Equal(got, want) {
		t.Errorf("cksum is %q, want %q, %v", got, want, err)
	}

	// One that the guest's kernel does not take, and more than any does.
	var stderr bytes.Buffer
	long := client.Command(t.Context(), "true", strings.Repeat("x", 200_000))
	long.Stderr = &stderr
	mustExit(t, long.Run(), 126)
	contains(t, stderr.String(), "argument list too long (E2BIG)")
	err = client.Command(t.Context(), "true", strings.Repeat("x", 7<<20)).Start()
	if err == nil || !strings.Contains(err.Error(), "argument list too long (E2BIG)") {
		t.Errorf("7 MiB: %v", err)
	}
}

func TestWorkingDirectory(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	if err := os.Mkdir(filepath.Join(f.Home, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{"": f.Home, "sub": f.Home + "/sub", "/": "/"} {
		cmd := client.Command(t.Context(), "pwd")
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil || strings.TrimSpace(string(out)) != want {
			t.Errorf("in %q: %q, %v; want %q", dir, out, err, want)
		}
	}
}

func TestCommandsThatCannotRun(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	file := script(t, f, "file", "text\n", 0o644)
	tests := []struct {
		name string
		set  func(*agent.Cmd)
		code int
		says string
	}{
		{"unknown name", func(c *agent.Cmd) { c.Argv = []string{"no-such-command"} }, 127, "no-such-command: command not found"},
		{"empty name", func(c *agent.Cmd) { c.Argv = []string{""} }, 127, "command not found"},
		{"unknown path", func(c *agent.Cmd) { c.Argv = []string{"/no/such"} }, 127, "/no/such: no such file"},
		{"path through a file", func(c *agent.Cmd) { c.Argv = []string{file + "/x"} }, 127, "no such file"},
		{"not executable", func(c *agent.Cmd) { c.Argv = []string{file} }, 126, "permission denied"},
		{"not executable, in PATH", func(c *agent.Cmd) {
			c.Argv, c.Env = []string{"file"}, []string{"PATH=/nowhere:" + f.Home}
		}, 126, "permission denied"},
		{"directory", func(c *agent.Cmd) { c.Argv = []string{f.Home} }, 126, "is a directory"},
		{"no program", func(c *agent.Cmd) {
			c.Argv = []string{script(t, f, "no-program", "text\n", 0o755)}
		}, 126, "#!/bin/sh"},
		{"no interpreter", func(c *agent.Cmd) {
			c.Argv = []string{script(t, f, "no-interpreter", "#!/no/such\n", 0o755)}
		}, 126, "interpreter"},
		{"no directory", func(c *agent.Cmd) { c.Dir = "/no/such" }, 126, "cannot enter the working directory /no/such"},
		{"file as directory", func(c *agent.Cmd) { c.Dir = file }, 126, "not a directory"},
		{"unknown user", func(c *agent.Cmd) { c.User = "stranger" }, 125, `no user named "stranger"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var stderr bytes.Buffer
			cmd := client.Command(t.Context(), "true")
			cmd.Stderr = &stderr
			test.set(cmd)
			mustExit(t, cmd.Run(), test.code)
			contains(t, stderr.String(), test.says)
			if strings.Count(stderr.String(), "\n") != 1 {
				t.Errorf("the message is not one line: %q", stderr.String())
			}
		})
	}
}

func TestProgramIsLookedUpInTheCommandsOwnPathAndDirectory(t *testing.T) {
	f := newFixture(t)
	script(t, f, "greet", "#!/bin/sh\necho hello\n", 0o755)
	for _, set := range []func(*agent.Cmd){
		func(c *agent.Cmd) { c.Argv, c.Env = []string{"greet"}, []string{"PATH=" + f.Home} },
		func(c *agent.Cmd) { c.Argv, c.Env = []string{"greet"}, []string{"PATH=/nowhere:."} },
		func(c *agent.Cmd) { c.Argv = []string{"./greet"} },
	} {
		cmd := f.Client(t).Command(t.Context())
		set(cmd)
		out, err := cmd.Output()
		if err != nil || string(out) != "hello\n" {
			t.Errorf("%v: %q, %v", cmd.Argv, out, err)
		}
	}
}

func TestRequestsThatNoKernelTakesAreRefusedBeforehand(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	nul := client.Command(t.Context(), "echo", "a\x00b")
	if err := nul.Start(); err == nil || !strings.Contains(err.Error(), "argument 1") {
		t.Errorf("NUL in an argument: %v", err)
	}
	env := client.Command(t.Context(), "true")
	env.Env = []string{"NOVALUE"}
	if err := env.Start(); err == nil || !strings.Contains(err.Error(), "NOVALUE") {
		t.Errorf("variable without a value: %v", err)
	}
}

func TestInputAndItsEndReachTheCommand(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	input := bytes.Repeat([]byte("0123456789abcde\n"), 200_000)
	for _, in := range [][]byte{nil, []byte("no newline"), input} {
		cmd := client.Command(t.Context(), "cat")
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout = bytes.NewReader(in), &out
		if err := cmd.Run(); err != nil || !bytes.Equal(out.Bytes(), in) {
			t.Errorf("%d bytes in, %d out, %v", len(in), out.Len(), err)
		}
	}
	if out, err := client.Command(t.Context(), "cat").Output(); err != nil || len(out) != 0 {
		t.Errorf("without input: %q, %v", out, err)
	}
}

func TestCommandNeedNotReadItsInput(t *testing.T) {
	f := newFixture(t)
	cmd := f.Client(t).Command(t.Context(), "head", "-c", "3")
	cmd.Stdin = endless{}
	out, err := cmd.Output()
	if err != nil || string(out) != "xxx" {
		t.Errorf("%q, %v", out, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

func TestLargeOutputsArriveWholeAndApart(t *testing.T) {
	f := newFixture(t)
	const size = 10 << 20
	cmd := f.Client(t).Command(t.Context(), "sh", "-c", fmt.Sprintf(
		"head -c %[1]d /dev/zero | tr '\\0' o & head -c %[1]d /dev/zero | tr '\\0' e >&2; wait", size))
	stdout, stderr := sha256.New(), sha256.New()
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	for _, stream := range []struct {
		name string
		sum  []byte
		fill string
	}{{"stdout", stdout.Sum(nil), "o"}, {"stderr", stderr.Sum(nil), "e"}} {
		if want := sha256.Sum256([]byte(strings.Repeat(stream.fill, size))); !bytes.Equal(stream.sum, want[:]) {
			t.Errorf("%s is not what the command wrote", stream.name)
		}
	}
}
