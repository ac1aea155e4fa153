package main

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// guestsVariable switches on the tests that boot guests.
const guestsVariable = "SANDBOX_TEST_GUESTS"

// TestCLI runs what needs no guest: help, errors, empty lists.
func TestCLI(t *testing.T) {
	bin := buildBinaries(t)
	commands := flakeCommand(bin, nil)
	maps.Copy(commands, refusalCommands())
	testscript.Run(t, testscript.Params{
		Dir:   "../../testdata/script/cli",
		Cmds:  commands,
		Setup: func(env *testscript.Env) error { return setup(env, bin) },
		Condition: func(name string) (bool, error) {
			if name != "root" {
				return false, fmt.Errorf("there is no condition %q", name)
			}
			return os.Geteuid() == 0, nil
		},
	})
}

// TestGuests boots real guests from the default image.
func TestGuests(t *testing.T) {
	dirs := imageDirs(t)
	bin := buildBinaries(t)
	scripts, err := filepath.Glob("../../testdata/script/guest/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("there are no scripts: %v", err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runScript(t, guestScript(t, dirs, bin, script))
		})
	}
}

// guestScript is how a script that boots guests is run.
func guestScript(t *testing.T, dirs layout.Dirs, bin, script string) testscript.Params {
	return testscript.Params{
		Files:     []string{script},
		Condition: guestCondition(dirs),
		Cmds: flakeCommand(bin, func() (*image.Image, error) {
			store, err := image.OpenStore(dirs.Images())
			if err != nil {
				return nil, err
			}
			return store.Get(testImage())
		}),
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_DATA_HOME", filepath.Dir(dirs.Data))
			env.Setenv("XDG_CACHE_HOME", filepath.Dir(dirs.Cache))
			env.Setenv("SANDBOX_IMAGE", testImage())
			env.Setenv("SANDBOX_TIMEOUT", bootPatience)
			env.Setenv("OLD_QEMU", oldQEMU)
			if _, err := exec.LookPath("go"); err == nil { // for scripts that build a program for the guest
				env.Vars = append(env.Vars, goPlaces(t)...)
			}
			if err := setup(env, bin); err != nil {
				return err
			}
			env.Defer(func() { removeAll(t, env, bin) }) // before what setup defers
			return nil
		},
	}
}

// guestDirs is imageDirs for a single test.
func guestDirs(t *testing.T) layout.Dirs {
	t.Helper()
	dirs := imageDirs(t)
	t.Setenv("SANDBOX_TIMEOUT", bootPatience)
	// Directories of the test and its parts begin so.
	t.Cleanup(watchForHang(t.Name(), filepath.Join(os.TempDir(), t.Name()), nil))
	return dirs
}

// bootPatience is how long a guest may take to boot on a slow machine that has
// more to do: an emulated one takes ten seconds on a good machine, and forty where
// four boot on two processors. One of which a processor stands still takes it all.
const bootPatience = "15m"

// imageDirs are where the images are that guests boot from.
func imageDirs(t *testing.T) layout.Dirs {
	t.Helper()
	if os.Getenv(guestsVariable) == "" {
		t.Skipf("boots guests: run make integration, or set %s=1 after make image", guestsVariable)
	}
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	return dirs
}

// testImage is the image that guests boot from: the one that make image makes,
// whatever the user's default is.
func testImage() string { return cmp.Or(os.Getenv("SANDBOX_IMAGE"), "debian") }

// programsVariable names the directory of the built programs where they cannot
// be built: in a guest.
const programsVariable = "SANDBOX_TEST_PROGRAMS"

// buildBinaries builds both programs as a user gets them, and returns their
// directory.
func buildBinaries(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv(programsVariable); bin != "" {
		return bin
	}
	bin := t.TempDir()
	buildProgram(t, "build", "-o", bin, "../sandbox", "../sandbox-agent")
	linkRemoteHelper(t, bin)
	return bin
}

// linkRemoteHelper gives the program in a directory the name by which Git starts it.
func linkRemoteHelper(t *testing.T, bin string) {
	t.Helper()
	if err := os.Symlink("sandbox", filepath.Join(bin, remoteHelper)); err != nil {
		t.Fatal(err)
	}
}

// buildProgram runs the go command for programs that need no libraries.
func buildProgram(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
}

// setup gives a script directories of its own. The runtime directory is not
// below the script's, whose path is too long for sockets.
func setup(env *testscript.Env, bin string) error {
	runtime, err := os.MkdirTemp("", "sb")
	if err != nil {
		return err
	}
	env.Defer(func() { os.RemoveAll(runtime) })
	var stood func()
	if a, ok := env.T().(*trial); ok {
		stood = func() { a.stood.Store(true) }
	}
	env.Defer(watchForHang(filepath.Base(env.WorkDir), env.WorkDir, stood))
	home := filepath.Join(env.WorkDir, "home")
	if err := os.MkdirAll(home, 0o700); err != nil {
		return err
	}
	env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
	testdata, err := filepath.Abs("../../testdata")
	if err != nil {
		return err
	}
	env.Setenv("TESTDATA", testdata)
	env.Setenv("HOME", home)
	env.Setenv("XDG_RUNTIME_DIR", runtime)
	for name, dir := range map[string]string{"XDG_DATA_HOME": "data", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache"} {
		if env.Getenv(name) == "" {
			env.Setenv(name, filepath.Join(env.WorkDir, dir))
		}
	}
	return nil
}

// removeAll ends what a failed script left running.
func removeAll(t *testing.T, env *testscript.Env, bin string) {
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, "sandbox"), args...)
		cmd.Env = env.Vars
		return cmd
	}
	out, err := command("ls", "--quiet").Output()
	if err != nil {
		t.Logf("listing what is left: %v", err)
	}
	for name := range strings.FieldsSeq(string(out)) {
		if out, err := command("rm", "--force", name).CombinedOutput(); err != nil {
			t.Errorf("removing %s: %v", name, fmt.Errorf("%w\n%s", err, out))
		}
	}
}
