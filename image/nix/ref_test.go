package nix

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// flakeDir makes a directory with a flake and a directory below it, and returns
// the real path of the former.
func flakeDir(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"sub/empty", "100%#"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{".", "100%#"} {
		if err := os.WriteFile(filepath.Join(dir, d, FlakeFile), []byte("{}"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestARefMeansTheSameInEveryDirectory(t *testing.T) {
	dir := flakeDir(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text, dir string
		want      Ref
	}{
		{".", dir, Ref{Flake: dir, Dir: dir}},
		{"#dev", dir, Ref{Flake: dir, Output: "dev", Dir: dir}},
		{".#dev", filepath.Join(dir, "sub"), Ref{Flake: dir, Output: "dev", Dir: dir}},
		{"../..", filepath.Join(dir, "sub", "empty"), Ref{Flake: dir, Dir: dir}},
		{link + "#a.b^out", "/", Ref{Flake: dir, Output: "a.b^out", Dir: dir}},
		{"path:./100%25%23", dir, Ref{Flake: "path:" + dir + "/100%25%23", Dir: filepath.Join(dir, "100%#")}},
		{"path:.?dir=100%25%23", dir, Ref{Flake: "path:" + dir + "?dir=100%25%23", Dir: dir}},
		{"path:.?lastModified=1#x", dir, Ref{Flake: "path:" + dir + "?lastModified=1", Output: "x", Dir: dir}},
		{"github:owner/name/main#x", dir, Ref{Flake: "github:owner/name/main", Output: "x"}},
		{"git+https://example.com/a?ref=b", dir, Ref{Flake: "git+https://example.com/a?ref=b"}},
		{"nixpkgs#image", dir, Ref{Flake: "nixpkgs", Output: "image"}},
	} {
		got, err := ParseRef(c.text, c.dir)
		if err != nil || got != c.want {
			t.Errorf("%q in %s: got %+v, %v; want %+v", c.text, c.dir, got, err, c.want)
		}
		if again, err := ParseRef(got.String(), "/"); err != nil || again != got {
			t.Errorf("%q, read again, is %+v, %v", got, again, err)
		}
	}
}

func TestARefToNoFlakeIsRefused(t *testing.T) {
	dir := flakeDir(t)
	if err := os.Symlink("..", filepath.Join(dir, "sub", "out")); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ text, dir, want string }{
		{"./nowhere", dir, "no directory " + dir + "/nowhere"},
		{"path:./sub", dir, "there is no flake.nix"}, // for Nix, too, path: does not look above
		{".", "/proc", "there is no flake.nix"},
		{".", filepath.Join(dir, "100%#"), "rename the directory"},
		{"path:./sub?dir=../100%25%23", dir, "give the path of the directory that has it"},
		{"./sub?dir=..", dir, "give the path"},
		{"path:./sub?dir=out", dir, "give the path"},
	} {
		if _, err := ParseRef(c.text, c.dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q in %s: got %v, want %q", c.text, c.dir, err, c.want)
		}
	}
}

func TestOutputsThatARefCanMean(t *testing.T) {
	for _, c := range []struct {
		output     string
		attributes []string
		origins    []string
	}{
		{"", []string{"packages.S.image", "packages.S.default"}, []string{"flake S f#image", "flake S f#default"}},
		{"dev", []string{"packages.S.dev"}, []string{"flake S f#dev"}},
		{"a.b", []string{"packages.S.a.b", "a.b"}, []string{"flake S f#a.b"}},
	} {
		ref := Ref{Flake: "f", Output: c.output}
		var attributes []string
		for _, a := range ref.attributes("S") {
			attributes = append(attributes, a.path)
		}
		if !slices.Equal(attributes, c.attributes) {
			t.Errorf("%q: attributes %q, want %q", c.output, attributes, c.attributes)
		}
		if origins := ref.Origins("S"); !slices.Equal(origins, c.origins) {
			t.Errorf("%q: origins %q, want %q", c.output, origins, c.origins)
		}
	}
}

func TestWithoutNixTheRemedyIsNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	if found, err := find(); err == nil {
		t.Skipf("Nix is installed as %s, which is found without a path: run this where it is not", found)
	} else if !strings.Contains(err.Error(), "nixos.org") || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[build-recipe]") {
		t.Errorf("got %v", err)
	}
}
