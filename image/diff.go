package image

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
)

// Diff is what makes one image different from another.
type Diff struct {
	From     string          `json:"from"` // references of the images
	To       string          `json:"to"`
	Packages []PackageChange `json:"packages"` // by name
	Files    []FileChange    `json:"files"`
	Manifest []FieldChange   `json:"manifest"` // by field
}

// PackageChange is a package that was added (From is nil), removed (To is nil),
// or changed. Of a name there may be several, if there are several versions.
type PackageChange struct {
	From *Package `json:"from,omitempty"`
	To   *Package `json:"to,omitempty"`
}

// Name is the package's name.
func (c PackageChange) Name() string {
	if c.From != nil {
		return c.From.Name
	}
	return c.To.Name
}

// FileChange is a file with another content.
type FileChange struct {
	Role string `json:"role"` // kernel, initrd or store
	From File   `json:"from"`
	To   File   `json:"to"`
}

// FieldChange is a field of the manifest that says something else. A value is
// nil where the field is absent.
type FieldChange struct {
	Field string `json:"field"` // such as "user.shell"
	From  any    `json:"from"`
	To    any    `json:"to"`
}

// Compare tells what changed from one image to another, by their manifests.
func Compare(from, to *Image) (Diff, error) {
	d := Diff{
		From: from.Ref(), To: to.Ref(), Files: []FileChange{},
		Packages: comparePackages(from.Manifest.Provenance.Packages, to.Manifest.Provenance.Packages),
	}
	after := to.Manifest.files()
	for i, f := range from.Manifest.files() {
		if f.SHA256 != after[i].SHA256 {
			d.Files = append(d.Files, FileChange{f.role, f.File, after[i].File})
		}
	}
	var err error
	d.Manifest, err = compareFields(from.Manifest, to.Manifest)
	return d, err
}

// comparePackages pairs what is left of each name when equal packages are put
// aside, in the order of versions.
func comparePackages(from, to []Package) []PackageChange {
	count := map[Package]int{}
	for _, p := range from {
		count[p]++
	}
	removed, added := map[string][]Package{}, map[string][]Package{}
	for _, p := range to {
		if count[p]--; count[p] < 0 {
			added[p.Name] = append(added[p.Name], p)
		}
	}
	for p, n := range count {
		for range n {
			removed[p.Name] = append(removed[p.Name], p)
		}
	}
	changes := []PackageChange{}
	names := slices.AppendSeq(slices.Collect(maps.Keys(removed)), maps.Keys(added))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		before, after := byVersion(removed[name]), byVersion(added[name])
		for i := range max(len(before), len(after)) {
			var c PackageChange
			if i < len(before) {
				c.From = &before[i]
			}
			if i < len(after) {
				c.To = &after[i]
			}
			changes = append(changes, c)
		}
	}
	return changes
}

func byVersion(packages []Package) []Package {
	slices.SortFunc(packages, func(a, b Package) int {
		return cmp.Or(cmp.Compare(a.Version, b.Version), cmp.Compare(a.Size, b.Size))
	})
	return packages
}

// compareFields compares everything that the rest of a Diff does not.
func compareFields(from, to Manifest) ([]FieldChange, error) {
	before, err := from.fields()
	if err != nil {
		return nil, err
	}
	after, err := to.fields()
	if err != nil {
		return nil, err
	}
	changes := []FieldChange{}
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if !reflect.DeepEqual(before[name], after[name]) {
			changes = append(changes, FieldChange{name, before[name], after[name]})
		}
	}
	return changes, nil
}

// fields are the manifest's values by their paths, such as "user.shell",
// without packages, and without what describes the files.
func (m Manifest) fields() (map[string]any, error) {
	m.Provenance.Packages = nil
	m.Kernel, m.Initrd, m.Store.File = File{}, File{}, File{}
	data, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("comparing manifests: %w", err)
	}
	var values map[string]any
	if err := json.Unmarshal(data, &values); err != nil {
		return nil, fmt.Errorf("comparing manifests: %w", err)
	}
	all := map[string]any{}
	flatten(all, "", values)
	return all, nil
}

func flatten(all map[string]any, prefix string, values map[string]any) {
	for name, value := range values {
		if inner, ok := value.(map[string]any); ok {
			flatten(all, prefix+name+".", inner)
		} else {
			all[prefix+name] = value
		}
	}
}
