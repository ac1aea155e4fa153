package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/image"
)

// configuration stands for all store paths without a version: the files that
// make the packages a system.
const configuration = "configuration"

func readPackages(file string) ([]image.Package, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	packages, err := parseRegistration(f)
	if err != nil {
		return nil, fmt.Errorf("reading the packages of the closure in %s: %w", file, err)
	}
	return packages, nil
}

// parseRegistration reads what nix-store --load-db does: for each store path a
// line each with the path, the digest, the size, the deriver and the number of
// references, and then these. A package's outputs count together.
func parseRegistration(r io.Reader) ([]image.Package, error) {
	sizes := map[image.Package]int64{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		store := lines.Text()
		var fields [4]string
		for i := range fields {
			if !lines.Scan() {
				return nil, fmt.Errorf("it ends within the entry of %s", store)
			}
			fields[i] = lines.Text()
		}
		size, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("the size of %s is no number: %q", store, fields[1])
		}
		references, err := strconv.Atoi(fields[3])
		if err != nil {
			return nil, fmt.Errorf("the number of references of %s is none: %q", store, fields[3])
		}
		for range references {
			if !lines.Scan() {
				return nil, fmt.Errorf("it ends within the references of %s", store)
			}
		}
		name, version := splitName(path.Base(store))
		sizes[image.Package{Name: name, Version: version}] += size
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	packages := make([]image.Package, 0, len(sizes))
	for p, size := range sizes {
		p.Size = size
		packages = append(packages, p)
	}
	slices.SortFunc(packages, func(a, b image.Package) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version))
	})
	return packages, nil
}

// outputs are the usual names of what a package is split into.
var outputs = []string{"bin", "data", "debug", "dev", "dist", "doc", "info", "lib", "libgcc", "man", "modules", "out", "terminfo"}

// splitName takes the base name of a store path apart. As Nix has it, the
// version starts after the first dash that no letter follows.
func splitName(base string) (name, version string) {
	_, base, _ = strings.Cut(base, "-") // the digest
	for i := 0; i+1 < len(base); i++ {
		if base[i] != '-' || base[i+1] < '0' || base[i+1] > '9' {
			continue
		}
		name, version = base[:i], base[i+1:]
		if start, output, ok := cutLast(version, "-"); ok && slices.Contains(outputs, output) {
			version = start
		}
		return name, version
	}
	return configuration, ""
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
