package debian

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/assemble"
	"github.com/sourcery-zone/sandbox/image/erofs"
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

// unpacker takes a tar stream of a whole system apart.
type unpacker struct {
	dir     string
	store   *erofs.Writer
	drop    []string
	ours    map[string]bool   // paths that the overlay replaces
	npm     map[string]bool   // package.json of what npm was asked for
	stored  map[string]string // the first name of each content, mode and owner
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
	store, err := erofs.Create(out, erofs.Options{Label: storeLabel, BlockSize: in.Block, BuildTime: epoch, TempDir: dir})
	if err != nil {
		return content{}, err
	}
	u := &unpacker{
		dir: dir, store: store, drop: in.Dropped, ours: map[string]bool{}, npm: map[string]bool{}, stored: map[string]string{},
		content: content{Epoch: epoch.Unix()},
	}
	for _, spec := range in.NPM {
		u.npm[npmModules+npmPackage(spec)+"/package.json"] = true
	}
	if in.NPMTool != nil {
		u.npm[npmModules+"npm/package.json"] = true
	}
	for _, e := range in.Overlay {
		u.ours[path.Clean(e.Name)] = true
	}
	if err := u.stream(r); err != nil {
		return content{}, err
	}
	for _, e := range in.Overlay {
		h := e.header()
		h.ModTime = epoch
		if err := store.Add(h, strings.NewReader(e.Data)); err != nil {
			return content{}, err
		}
	}
	if err := errors.Join(store.Close(), out.Sync()); err != nil {
		return content{}, err
	}
	return u.finish()
}

func (u *unpacker) stream(r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the system that mmdebstrap made: %w", err)
		}
		if err := u.entry(h, tr); err != nil {
			return err
		}
	}
}

func (u *unpacker) entry(h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if release, ok := strings.CutPrefix(name, "boot/vmlinuz-"); ok && h.Typeflag == tar.TypeReg {
		u.content.Release = release
		return u.kernel(r)
	}
	if u.ours[name] || !keep(name, h.Typeflag == tar.TypeDir, u.drop) {
		return nil
	}
	var err error
	switch {
	case h.Typeflag != tar.TypeReg:
	case strings.HasPrefix(name, modulesPrefix):
		_, inside, _ := strings.Cut(strings.TrimPrefix(name, modulesPrefix), "/")
		r, err = u.tee(filepath.Join(modulesDir, inside), r)
	case name == "var/lib/dpkg/status":
		r, err = u.read(r, func(s string) error {
			packages, err := dpkgStatus(s)
			u.content.Packages = append(u.content.Packages, packages...)
			return err
		})
	case u.npm[name]:
		r, err = u.read(r, func(s string) error {
			p, err := npmManifest(s)
			u.content.Packages = append(u.content.Packages, p)
			return err
		})
	}
	if err != nil {
		return err
	}
	return u.add(h, r)
}

// linkFrom is the size from which it saves space to store equal files once.
const linkFrom = 4096

// add stores a file, or a further name of an equal one.
func (u *unpacker) add(h *tar.Header, r io.Reader) error {
	if h.Typeflag != tar.TypeReg || h.Size < linkFrom || len(h.PAXRecords) > 0 {
		return u.store.Add(h, r)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return fmt.Errorf("reading the system that mmdebstrap made: %s: %w", h.Name, err)
	}
	key := fmt.Sprintf("%x %o %d:%d", sha256.Sum256(data), h.Mode, h.Uid, h.Gid)
	first, ok := u.stored[key]
	if !ok {
		u.stored[key] = h.Name
		return u.store.Add(h, bytes.NewReader(data))
	}
	link := *h
	link.Typeflag, link.Linkname, link.Size = tar.TypeLink, first, 0
	return u.store.Add(&link, nil)
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
