package nix

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// FlakeFile is the file that makes a directory a flake.
const FlakeFile = "flake.nix"

// Ref names an output of a flake, and means the same in every directory.
type Ref struct {
	Flake  string // as Nix reads it; local flakes have absolute paths
	Output string // what stands behind the #; empty means the flake's image
	// Dir is the directory of a local flake, without symbolic links; empty
	// for a flake that Nix fetches.
	Dir string
}

// ParseRef reads a reference as `nix build` does: relative paths start at dir,
// and a path below a flake means that flake.
func ParseRef(text, dir string) (Ref, error) {
	flake, output, _ := strings.Cut(text, "#")
	path, isURL := strings.CutPrefix(flake, "path:")
	if !isURL && flake != "" && flake[0] != '.' && flake[0] != '/' {
		return Ref{Flake: flake, Output: output}, nil
	}
	path, query, _ := strings.Cut(path, "?")
	parameters, err := url.ParseQuery(query)
	if err == nil && isURL {
		path, err = url.PathUnescape(path)
	}
	if err != nil {
		return Ref{}, fmt.Errorf("the flake %s: %w", flake, err)
	}
	if query != "" {
		query = "?" + query
	}
	if !filepath.IsAbs(path) {
		path = filepath.Join(dir, path)
	}
	sub := parameters.Get("dir") // where in path the flake is
	found, err := findFlake(path, sub, !isURL)
	if err == nil {
		err = checkInside(found, sub)
	}
	if err != nil {
		return Ref{}, err
	}
	ref := Ref{Flake: found + query, Output: output, Dir: found}
	if isURL {
		ref.Flake = "path:" + (&url.URL{Path: found}).EscapedPath() + query
	} else if strings.ContainsAny(found, "#?") {
		return Ref{}, fmt.Errorf("the flake in %q cannot be named: for Nix, # and ? end a path; rename the directory", found)
	}
	return ref, nil
}

// findFlake returns the real path of the directory that has a flake in its
// directory sub: dir or, with up, the nearest one above it.
func findFlake(dir, sub string, up bool) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("there is no directory %s with a flake in it", dir)
	}
	if err != nil {
		return "", err
	}
	for d := real; ; d = filepath.Dir(d) {
		if info, err := os.Stat(filepath.Join(d, sub, FlakeFile)); err == nil && info.Mode().IsRegular() {
			return d, nil
		}
		if !up || d == filepath.Dir(d) {
			break
		}
	}
	return "", fmt.Errorf("%s is no flake: there is no %s in it", filepath.Join(dir, sub), FlakeFile)
}

// checkInside makes sure that the directory sub is below dir, which is what a Ref
// is judged by.
func checkInside(dir, sub string) error {
	real, err := filepath.EvalSymlinks(filepath.Join(dir, sub))
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(dir, real)
	if err != nil || !filepath.IsLocal(rel) || (sub != "" && !filepath.IsLocal(sub)) {
		return fmt.Errorf("the flake in %s is not in %s, of which dir=%s names a part: give the path of the directory that has it", real, dir, sub)
	}
	return nil
}

// String is the reference as a person would write it.
func (r Ref) String() string {
	if r.Output == "" {
		return r.Flake
	}
	return r.Flake + "#" + r.Output
}

// names are the outputs that r can mean, the best first.
func (r Ref) names() []string {
	if r.Output == "" {
		return []string{"image", "default"}
	}
	return []string{r.Output}
}

// Origins are what an image that was built from r for a system may be known by
// in an image.Store, the best first.
func (r Ref) Origins(system string) []string {
	var origins []string
	for _, name := range r.names() {
		origins = append(origins, r.origin(name, system))
	}
	return origins
}

func (r Ref) origin(name, system string) string {
	return "flake " + system + " " + r.Flake + "#" + name
}

// attribute is a path into a flake's outputs, with the name that led to it.
type attribute struct{ name, path string }

// attributes are where the output is looked for, in this order. A name that was
// written out may also be a path from the top, such as
// nixosConfigurations.x.config.system.build.image.
func (r Ref) attributes(system string) []attribute {
	var all []attribute
	for _, name := range r.names() {
		all = append(all, attribute{name, "packages." + system + "." + name})
	}
	if strings.Contains(r.Output, ".") {
		all = append(all, attribute{r.Output, r.Output})
	}
	return all
}
