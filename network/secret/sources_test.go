package secret

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// testSources are two variables, a stored secret and a home.
func testSources(t *testing.T) Sources {
	t.Helper()
	home := t.TempDir()
	env := map[string]string{"HOME": home, "K": testValue, "BOTH": "of the environment", "BAD": testValue + "\nmore"}
	s := Sources{Getenv: func(name string) string { return env[name] }, Store: Store{filepath.Join(home, "secrets")}}
	for name, text := range map[string]string{"BOTH": "of the store", "STORED": testValue} {
		if err := s.Store.Set(name, value(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestSources(t *testing.T) {
	s := testSources(t)
	home := s.Getenv("HOME")
	write(t, filepath.Join(home, "k"), testValue+"\n")
	t.Setenv("SECRET_TEST_OUTER", testValue)
	for source, want := range map[string]string{
		"K":                     testValue,
		"BOTH":                  "of the environment",
		"STORED":                testValue,
		"X=env:K":               testValue,
		"X=store:BOTH":          "of the store",
		"X=file:~/k":            testValue,
		"X=file:" + home + "/k": testValue,
		"X=command:echo a@b, c": "a@b, c",
		"X=command:printf '%s\\n' $SECRET_TEST_OUTER": testValue, // with our environment
		"X=command:printf x; cat":                     "x",       // of which there is no input
	} {
		spec, err := Parse(source + "@a.example")
		if err != nil {
			t.Fatal(err)
		}
		if v, err := s.Value(t.Context(), spec); err != nil || v.Reveal() != want {
			t.Errorf("%s: %q, %v", source, v.Reveal(), err)
		}
	}
}

func TestAMissingSecretSaysWhatToDo(t *testing.T) {
	s := testSources(t)
	home := s.Getenv("HOME")
	write(t, filepath.Join(home, "empty"), "\n")
	write(t, filepath.Join(home, "long"), strings.Repeat("x", maxRead))
	write(t, filepath.Join(home, "lines"), testValue+"\n"+testValue)
	if err := unix.Mkfifo(filepath.Join(home, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for source, want := range map[string]string{
		"NONE":                                   "neither is the variable NONE set, nor is a secret stored under that name: export it",
		"X=env:NONE":                             "the variable NONE is not set, or empty",
		"X=store:NONE":                           "none is stored as NONE",
		"BAD":                                    "the value of the variable BAD cannot be one: it has characters that cannot be in a header",
		"X=file:~/none":                          "no such file",
		"X=file:" + home:                         "is no regular file",
		"X=file:~/fifo":                          "is no regular file",
		"X=file:~/empty":                         "cannot be one: it is empty",
		"X=file:~/long":                          "cannot be one: it has more than 16384 bytes",
		"X=file:~/lines":                         "cannot be one: it has characters",
		"X=command:true":                         "what its command prints cannot be one: it is empty",
		"X=command:exit 7":                       "its command failed: exit status 7",
		"X=command:echo $K; no":                  "its command failed: exit status 127",
		"X=command:yes; :":                       "its command did not end by itself: it prints more than 16384 bytes",
		"X=command:kill $$":                      "its command failed: signal: terminated",
		"X=command:echo s3cr3t-of-tests; exit 1": "exit status 1",
		"X=command:echo s3cr3t-of-tests; echo s3cr3t-of-tests; ": "what its command prints cannot be one: it has characters",
	} {
		spec, err := Parse(source + "@a.example")
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Value(t.Context(), spec)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), spec.Name) || strings.Contains(err.Error(), testValue) || !v.IsZero() {
			t.Errorf("%s: %v, %v; want an error with %q", source, v, err, want)
		}
		stores := strings.Contains(want, "stored")
		if remedies := remedy.Of(err); stores != (len(remedies) == 1 && remedies[0].Do == remedy.StoreSecret && remedies[0].Args[0] == "NONE") {
			t.Errorf("%s has the remedies %v", source, remedies)
		}
	}
}

func TestACommandEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "started")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("nobody waits any more")
	go func() {
		_, err := os.ReadFile(fifo)
		cancel(errors.Join(gone, err))
	}()
	spec := Spec{Name: "K", Source: Source{Kind: FromCommand, Of: "echo " + testValue + "; echo >" + fifo + "; exec sleep 1000"}}
	v, err := Sources{Getenv: os.Getenv}.Value(ctx, spec)
	if !errors.Is(err, gone) || strings.Contains(err.Error(), testValue) || !v.IsZero() {
		t.Errorf("%v, %v", v, err)
	}
}

// TestACommandIsNoFileOfTheProjects is for what a guest writes into a directory that it shares with the user.
func TestACommandIsNoFileOfTheProjects(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "get"), []byte("#!/bin/sh\necho "+testValue), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	for command, want := range map[string]string{"./get": "", "./get || pwd": "/"} {
		v, err := Sources{Getenv: os.Getenv}.Value(t.Context(), Spec{Name: "K", Source: Source{Kind: FromCommand, Of: command}})
		if v.Reveal() != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", command, v.Reveal(), err)
		}
	}
}

// TestACommandAsksOnTheTerminal is for password managers that ask to be unlocked, and for a standard input that is not
// theirs.
func TestACommandAsksOnTheTerminal(t *testing.T) {
	const variable = "SECRET_TEST_TERMINAL"
	if os.Getenv(variable) != "" {
		spec := Spec{Name: "K", Source: Source{Kind: FromCommand, Of: "echo who? >&2; read answer; echo got $answer"}}
		v, err := Sources{Getenv: os.Getenv}.Value(t.Context(), spec)
		if err != nil || v.Reveal() != "got me" {
			t.Errorf("%q, %v", v.Reveal(), err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run", "^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), variable+"=1")
	input, err := os.Open(write(t, filepath.Join(t.TempDir(), "input"), "not me\n"))
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	cmd.Stdin = input
	terminal, ours, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	cmd.Stdout, cmd.Stderr = ours, ours
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true, Ctty: 1}
	err = cmd.Start()
	ours.Close()
	if err != nil {
		t.Fatal(err)
	}
	var screen bytes.Buffer
	buf := make([]byte, 1024)
	for asked := false; ; {
		n, err := terminal.Read(buf)
		screen.Write(buf[:n])
		if !asked && strings.Contains(screen.String(), "who?") {
			asked = true
			if _, err := terminal.WriteString("me\n"); err != nil {
				t.Fatal(err)
			}
		}
		if err != nil { // nobody has the other end any more
			break
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v:\n%s", err, screen.String())
	}
}
