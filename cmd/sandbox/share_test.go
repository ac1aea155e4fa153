package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine/project"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A guest that has the project can make a link of one of its directories while
// the project's file is read for another sandbox.
func TestLinkThatComesAfterASettingsFileWasJudged(t *testing.T) {
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"project/docs", "outside"} {
		if err := os.MkdirAll(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(base, "project", project.FileName)
	write(t, file, `share = "docs:docs:ro"`)
	files, err := project.Load(trust.Caller(os.Getenv), filepath.Dir(file), "", func(err error) { t.Error(err) })
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	spec, source := files[0].Settings[0].Values[0], files[0].Source
	if _, err := parseShares([]string{spec}, source, virtiofs.CheckOptions{}); err != nil {
		t.Fatal(err)
	}
	docs := filepath.Join(base, "project/docs")
	if err := os.Remove(docs); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside", docs); err != nil {
		t.Fatal(err)
	}
	if shares, err := parseShares([]string{spec}, source, virtiofs.CheckOptions{}); err == nil || !strings.Contains(err.Error(), "replaced by a link to "+base+"/outside") {
		t.Errorf("%+v, %v", shares, err)
	}
	// A user's own link is meant.
	if shares, err := parseShares([]string{spec}, project.Source{Layer: project.Flag}, virtiofs.CheckOptions{}); err != nil || shares[0].Source != base+"/outside" {
		t.Errorf("of the command line: %+v, %v", shares, err)
	}
}
