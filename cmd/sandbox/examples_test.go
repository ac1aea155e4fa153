package main

import (
	"encoding/xml"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/jstemmer/go-junit-report/v2/junit"
)

// ciScripts are the shell scripts of the examples of CI jobs, each with what
// its system runs in a shell of its own.
func ciScripts(t *testing.T) map[string][]string {
	t.Helper()
	var github struct {
		Jobs struct {
			Smoke struct{ Steps []struct{ Run string } }
		}
	}
	readYAML(t, "../../examples/ci/github.yml", &github)
	var gitlab struct {
		Smoke struct {
			BeforeScript []string `yaml:"before_script"`
			Script       []string
		}
	}
	readYAML(t, "../../examples/ci/gitlab.yml", &gitlab)
	scripts := map[string][]string{
		"gitlab": {strings.Join(append(gitlab.Smoke.BeforeScript, gitlab.Smoke.Script...), "\n")},
	}
	for _, step := range github.Jobs.Smoke.Steps {
		if step.Run != "" {
			scripts["github"] = append(scripts["github"], step.Run)
		}
	}
	for name, parts := range scripts {
		if !strings.Contains(parts[len(parts)-1], "sandbox smoke") {
			t.Fatalf("the last script of %s does not run sandbox smoke: %q", name, parts)
		}
	}
	return scripts
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestCIExamplesAreShell(t *testing.T) {
	for name, parts := range ciScripts(t) {
		for _, part := range parts {
			if out, err := exec.Command("bash", "-n", "-c", part).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s\n%s", name, err, out, part)
			}
		}
	}
}

// TestCIExamples runs the commands of the examples, from the installation to
// the results, with this repository in place of its address and without their
// change to /dev/kvm.
func TestCIExamples(t *testing.T) {
	dirs := guestDirs(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("git", "-C", root, "rev-parse", "HEAD").CombinedOutput(); err != nil {
		t.Skipf("the examples clone this repository: run the test in a git checkout of its user's own (%v: %s)", err, out)
	}
	tmp := t.TempDir()
	runtime, err := os.MkdirTemp("", "sb") // t.TempDir is too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	for path, text := range map[string]string{
		"home/.gitconfig": fmt.Sprintf("[safe]\n\tdirectory = *\n[url %q]\n\tinsteadOf = https://github.com/sourcery-zone/sandbox\n", "file://"+root),
		"stubs/sudo":      "#!/bin/sh\nexec \"$@\"\n",
		"stubs/chmod":     "#!/bin/sh\ntest \"$*\" = \"666 /dev/kvm\" || exec /bin/chmod \"$@\"\n",
	} {
		path = filepath.Join(tmp, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), goPlaces(t)...)
	env = append(env,
		"HOME="+filepath.Join(tmp, "home"), "XDG_DATA_HOME="+filepath.Join(tmp, "data"), "XDG_STATE_HOME="+filepath.Join(tmp, "state"),
		"XDG_RUNTIME_DIR="+runtime, "XDG_CACHE_HOME="+filepath.Dir(dirs.Cache))
	path := filepath.Join(tmp, "stubs") + ":" + os.Getenv("PATH")
	scripts := ciScripts(t)
	for _, name := range []string{"github", "gitlab"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			added := filepath.Join(dir, "path")
			env := append(slices.Clone(env), "RUNNER_TEMP="+dir, "GITHUB_PATH="+added, "CI_PROJECT_DIR="+dir)
			for _, script := range scripts[name] {
				more, _ := os.ReadFile(added) // not there before a step writes it
				cmd := exec.Command("bash", "-eo", "pipefail", "-c", script)
				cmd.Dir = dir
				cmd.Env = append(slices.Clone(env), "PATH="+strings.ReplaceAll(string(more), "\n", ":")+path)
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s\n%s", err, script, out)
				}
			}
			var results junit.Testsuites
			data, err := os.ReadFile(filepath.Join(dir, "smoke.xml"))
			if err == nil {
				err = xml.Unmarshal(data, &results)
			}
			if err != nil || results.Tests == 0 || results.Failures+results.Errors > 0 {
				t.Errorf("%v\n%s", err, data)
			}
		})
	}
}

// goPlaces keeps Go's caches where they are although HOME is another.
func goPlaces(t *testing.T) []string {
	t.Helper()
	var env []string
	for _, name := range []string{"GOCACHE", "GOMODCACHE", "GOPATH"} {
		out, err := exec.Command("go", "env", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, name+"="+strings.TrimSpace(string(out)))
	}
	return env
}
