package main

import (
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sourcery-zone/sandbox/"

// imports are this module's packages, each with those of them that it imports.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports", "./...")
	cmd.Dir = repository
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	packages := map[string][]string{}
	for in := json.NewDecoder(strings.NewReader(string(out))); in.More(); {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := in.Decode(&p); err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		packages[name] = []string{}
		for _, path := range p.Imports {
			if ours, ok := strings.CutPrefix(path, module); ok {
				packages[name] = append(packages[name], ours)
			}
		}
	}
	return packages
}

// TestTheMapIsComplete holds docs/architecture.md to the folders that there are.
func TestTheMapIsComplete(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "docs", "architecture.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, folders, _ := strings.Cut(string(text), "\n## Folders\n")
	folders, _, _ = strings.Cut(folders, "\n## ")
	for name := range imports(t) {
		// One of several in a row may be named without what they have in common,
		// and a program that another one is made of not at all.
		base := strings.TrimPrefix(name, "internal/")
		base = strings.TrimSuffix(strings.TrimSuffix(base, "/plaininit"), "/traffic")
		if !strings.Contains(folders, "`"+name+"`") && !strings.Contains(folders, "`"+base+"`") {
			t.Errorf("docs/architecture.md does not say what the folder %s is for", name)
		}
	}
}

// TestDependenciesPointDown holds the code to docs/architecture.md.
func TestDependenciesPointDown(t *testing.T) {
	packages := imports(t)
	if len(packages["machine"]) == 0 {
		t.Fatal("there is no package machine")
	}
	program := func(name string) bool {
		return strings.HasPrefix(name, "cmd/") || strings.HasPrefix(name, "examples/") || name == "internal/bench"
	}
	const process = "machine/supervisor"
	for name, imports := range packages {
		for _, imported := range imports {
			allowed := true
			switch {
			case strings.HasSuffix(imported, "test"):
				allowed = false // it is for tests, which are not asked here
			case program(imported), imported == process:
				allowed = program(name) // a command knows what runs in the supervisor by its API only
			case imported == "machine":
				allowed = program(name) || name == process || name == "machine/smoke" || name == "machine/project"
			case strings.HasPrefix(imported, "machine/"):
				allowed = program(name) || name == "machine" || strings.HasPrefix(name, "machine/")
			}
			if !allowed {
				t.Errorf("%s imports %s", name, imported)
			}
		}
	}
	for name, others := range map[string][]string{
		"qmp":                 {"qmp/libvirt"}, // which was put aside for that
		"agent":               {"agent/server", "agent/guest"},
		"agent/server":        {"agent/guest"}, // it works without
		"agent/internal/wire": {"agent"},
	} {
		for _, other := range others {
			if slices.Contains(packages[name], other) {
				t.Errorf("%s imports %s", name, other)
			}
		}
	}
}

// TestPromisesHaveTheirTests holds SECURITY.md to the tests that there are.
func TestPromisesHaveTheirTests(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(repository, "SECURITY.md"))
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	err = filepath.WalkDir(repository, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		data, err := os.ReadFile(path)
		code.Write(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, m := range inlineCode.FindAllStringSubmatch(string(text), -1) {
		name := m[1]
		switch {
		case strings.HasPrefix(name, "Test"):
			found++
			if !strings.Contains(code.String(), "\nfunc "+name+"(t *testing.T)") {
				t.Errorf("SECURITY.md names the test %s, which does not exist", name)
			}
		case strings.HasPrefix(name, "guest/") || strings.HasPrefix(name, "cli/"):
			if strings.HasSuffix(name, "NAME") {
				continue
			}
			if _, err := os.Stat(filepath.Join(repository, "testdata", "script", name+".txtar")); err != nil {
				t.Errorf("SECURITY.md names a script: %v", err)
			}
		}
	}
	if found == 0 {
		t.Error("SECURITY.md names no test")
	}
}
