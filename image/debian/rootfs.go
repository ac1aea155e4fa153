package debian

import (
	"archive/tar"
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/assemble"
	"github.com/sourcery-zone/sandbox/image/erofs"
	"github.com/sourcery-zone/sandbox/image/rootfs"
)

// Names inside the directory of a cached root file system, besides those of an
// image's files.
const (
	modulesDir  = "modules" // the kernel's modules, with modules.dep
	contentFile = "content.json"
)

// storeLabel is the volume label of every store.
const storeLabel = "sandbox-store"

// content says what a root file system consists of.
type content struct {
	Epoch    int64           `json:"epoch"`
	Release  string          `json:"release"` // of the kernel
	Packages []image.Package `json:"packages"`
}

// modulesPrefix is where a kernel's modules are; /lib is a link to /usr/lib.
const modulesPrefix = "usr/lib/modules/"

// unpacker takes from the tar stream of a system what a recipe wants of it
// besides the store.
type unpacker struct {
	dir     string
	drop    rootfs.Filter
	npm     map[string]bool // package.json of what npm was asked for
	content content
}

// unpack packs the tar stream r, with the recipe's own files over it, as the
// store in dir, and puts the kernel and its modules beside it.
func unpack(r io.Reader, dir string, in inputs, epoch time.Time) (content, error) {
	out, err := os.OpenFile(filepath.Join(dir, assemble.StoreFile), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return content{}, err
	}
	defer out.Close()
	u := &unpacker{dir: dir, drop: in.Dropped, npm: map[string]bool{}, content: content{Epoch: epoch.Unix()}}
	for _, spec := range in.NPM {
		u.npm[npmModules+npmPackage(spec)+"/package.json"] = true
	}
	if in.NPMTool != nil {
		u.npm[npmModules+"npm/package.json"] = true
	}
	err = rootfs.Pack(r, out, rootfs.Options{
		Options: erofs.Options{Label: storeLabel, BlockSize: in.Block, BuildTime: epoch, TempDir: dir},
		Overlay: in.Overlay, Visit: u.visit,
	})
	if err != nil {
		return content{}, err
	}
	return u.finish()
}

func (u *unpacker) visit(name string, h *tar.Header, r io.Reader) (io.Reader, error) {
	if release, ok := strings.CutPrefix(name, "boot/vmlinuz-"); ok && h.Typeflag == tar.TypeReg {
		u.content.Release = release
		if err := u.kernel(r); err != nil {
			return nil, err
		}
		return nil, rootfs.ErrSkip
	}
	switch {
	case !keep(name, h.Typeflag == tar.TypeDir, u.drop):
		return nil, rootfs.ErrSkip
	case h.Typeflag != tar.TypeReg:
	case strings.HasPrefix(name, modulesPrefix):
		_, inside, _ := strings.Cut(strings.TrimPrefix(name, modulesPrefix), "/")
		return u.tee(filepath.Join(modulesDir, inside), r)
	case name == "var/lib/dpkg/status":
		return u.read(r, func(s string) error {
			packages, err := dpkgStatus(s)
			u.content.Packages = append(u.content.Packages, packages...)
			return err
		})
	case u.npm[name]:
		return u.read(r, func(s string) error {
			p, err := npmManifest(s)
			u.content.Packages = append(u.content.Packages, p)
			return err
		})
	}
	return r, nil
}

// kernel stores the kernel in the form that boots fastest.
func (u *unpacker) kernel(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return assemble.Kernel(u.dir, data)
}

// tee copies r to the file name beside the store and gives its content again.
func (u *unpacker) tee(name string, r io.Reader) (io.Reader, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	name = filepath.Join(u.dir, name)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return nil, err
	}
	return strings.NewReader(string(data)), os.WriteFile(name, data, 0o644)
}

// read hands the text of r to use and gives it again.
func (u *unpacker) read(r io.Reader, use func(string) error) (io.Reader, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return strings.NewReader(string(data)), use(string(data))
}

// finish checks that nothing is missing.
func (u *unpacker) finish() (content, error) {
	if u.content.Release == "" {
		return content{}, errors.New("the packages brought no kernel (/boot/vmlinuz-*)")
	}
	if _, err := os.Stat(filepath.Join(u.dir, modulesDir, "modules.dep")); err != nil {
		return content{}, fmt.Errorf("the packages brought no list of the modules of kernel %s: %w", u.content.Release, err)
	}
	slices.SortFunc(u.content.Packages, func(a, b image.Package) int { return strings.Compare(a.Name, b.Name) })
	return u.content, nil
}

// dpkgStatus reads the installed packages from dpkg's database.
func dpkgStatus(text string) ([]image.Package, error) {
	var packages []image.Package
	var p image.Package
	installed := false
	sc := bufio.NewScanner(strings.NewReader(text + "\n\n"))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ": ")
		switch key {
		case "Package":
			p.Name = value
		case "Version":
			p.Version = value
		case "Installed-Size":
			kib, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("the size of Debian package %s is not a number: %w", p.Name, err)
			}
			p.Size = kib << 10
		case "Status":
			installed = value == "install ok installed"
		case "":
			if installed && p.Name != "" {
				packages = append(packages, p)
			}
			p, installed = image.Package{}, false
		}
	}
	return packages, sc.Err()
}

// npmManifest reads the name and version from a package.json.
func npmManifest(text string) (image.Package, error) {
	var p struct{ Name, Version string }
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return image.Package{}, fmt.Errorf("reading the description of an npm package: %w", err)
	}
	return image.Package{Name: "npm:" + p.Name, Version: p.Version}, nil
}
