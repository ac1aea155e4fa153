package main

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/progress"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestScriptGolden pins every command that runs on a bare Debian 12, the release that takes the most.
func TestScriptGolden(t *testing.T) {
	release := mustRelease(t, debian12)
	plan := makePlan(release, amd64, needsOf("test", release, amd64), Inventory{needVirtiofsd: {}})
	s, err := makeScript(plan, release, amd64, parseDeb822(deb822), "/tmp/sandbox-setup", []string{virtiofsdOf("").Dir()})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := s.print(&b); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "debian12.sh")
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("the commands differ from %s (go test ./internal/setup -update writes it anew):\n%s", golden, b.String())
	}
}

func TestScriptLeavesTheSystemsConfigurationAlone(t *testing.T) {
	release := mustRelease(t, debian12)
	plan := makePlan(release, amd64, needsOf("test", release, amd64), Inventory{})
	s, err := makeScript(plan, release, amd64, parseDeb822(deb822), "/work", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range s.Files {
		if !strings.HasPrefix(file.Path, "/work/") {
			t.Errorf("%s is written outside of the working directory", file.Path)
		}
	}
	for _, step := range s.Steps {
		if strings.Contains(quote(step.Argv), "/etc/") {
			t.Errorf("a command touches the system's configuration: %s", quote(step.Argv))
		}
	}
}

func TestScriptNeedsAMirrorOnlyForOtherSuites(t *testing.T) {
	release := mustRelease(t, debian12)
	if _, err := makeScript(Plan{Packages: []string{"tmux"}}, release, amd64, nil, "/work", nil); err != nil {
		t.Errorf("the system's own sources are enough for tmux: %v", err)
	}
	if _, err := makeScript(Plan{Packages: []string{"qemu-utils"}, Suite: "bookworm-backports"}, release, amd64, nil, "/work", nil); err == nil {
		t.Error("backports without a known mirror should be an error")
	}
}

func TestRunStopsAtTheFirstFailureAndQuotesIt(t *testing.T) {
	dir := t.TempDir()
	s := script{Steps: []Step{
		{Title: "one", Argv: []string{"sh", "-c", "echo never shown"}},
		{Title: "two", Root: true, Argv: []string{"sh", "-c", "echo the reason >&2; exit 3"}},
		{Title: "three", Argv: []string{"touch", filepath.Join(dir, "ran")}},
	}}
	var shown strings.Builder
	err := s.run(context.Background(), []string{"env"}, progress.NewPlain(&shown))
	if err == nil || !strings.Contains(err.Error(), "the reason") || !strings.Contains(err.Error(), "env sh -c") {
		t.Errorf("the error should quote the command and its output: %v", err)
	}
	if got := shown.String(); !strings.Contains(got, "one: done") || !strings.Contains(got, "two: failed") || strings.Contains(got, "three") {
		t.Errorf("progress was %q", got)
	}
	if _, err := os.Stat(filepath.Join(dir, "ran")); err == nil {
		t.Error("the step after the failure ran")
	}
}

func TestObserveFindsProgramsAndTheirVersions(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	write := func(dir, name, version string) {
		text := "#!/bin/sh\necho '" + version + "'\n"
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(first, "virtiofsd", "virtiofsd version 7.2.22")
	write(second, "virtiofsd", "virtiofsd 1.13.2")
	write(first, "newuidmap", "")
	t.Setenv("PATH", first+":"+second+":/usr/bin:/bin")

	needs := runNeeds(amd64)
	for i := range needs {
		needs[i].Dirs = nil
		if needs[i].ID == needUIDMap {
			needs[i].Programs = []string{"newuidmap", "a-program-that-is-nowhere"}
		}
	}
	got := observe(context.Background(), needs)
	if found := got[needVirtiofsd]; found.Path != filepath.Join(second, "virtiofsd") || found.Version != (Version{1, 13}) {
		t.Errorf("the usable virtiofsd is the second, and %+v was found", found)
	}
	if found := got[needUIDMap]; found.Path != "" || len(found.Absent) != 1 {
		t.Errorf("half of a need is not enough, and %+v was found", found)
	}
}

func TestForeignLibraries(t *testing.T) {
	b := virtiofsdOf("trixie", "main")
	listing := "\tlinux-vdso.so.1 (0x00007f35)\n" +
		"\tlibm.so.6 => " + b.Dir() + "/usr/lib/x86_64-linux-gnu/libm.so.6 (0x00007f35)\n" +
		"\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f35)\n" +
		"\tlibnew.so.1 => not found\n" +
		"\t/lib64/ld-linux-x86-64.so.2 (0x00007f35)\n"
	if got := strings.Join(b.foreignLibraries(listing), " "); got != "libc.so.6 libnew.so.1" {
		t.Errorf("got %q", got)
	}
}

func TestExitCodes(t *testing.T) {
	manual := &manualError{Release{Name: "Fedora Linux 43"}, []string{"QEMU", "virtiofsd"}}
	if got := exitCode(manual); got != 2 {
		t.Errorf("what the user has to do himself should end with 2, and not %d", got)
	}
	if got := exitCode(errors.New("apt failed")); got != 1 {
		t.Errorf("a failure should end with 1, and not %d", got)
	}
	for _, want := range []string{"Fedora Linux 43", "QEMU", "virtiofsd", "nothing was"} {
		if !strings.Contains(manual.Error(), want) {
			t.Errorf("the message lacks %q: %v", want, manual)
		}
	}
}

func TestUnknownSetIsAnError(t *testing.T) {
	var out strings.Builder
	err := newApp(&out, &out, nil).Run([]string{"setup", "everything"})
	if err == nil || !strings.Contains(err.Error(), `"everything"`) {
		t.Errorf("got %v", err)
	}
}
