package initrd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Module is one kernel module, ready for finit_module(2).
type Module struct {
	Name string // file name, such as erofs.ko
	Data []byte // uncompressed
	// Chain tells which modules have to be loaded one after the other: those
	// of one number need each other, those of different ones do not.
	Chain int
}

// Select returns the modules that wanted names (such as "virtio_blk"), each
// after everything that it depends on, from tree: the directory of one kernel's
// modules, with its modules.dep and modules.builtin. What is built into the
// kernel is left out. optional names a module that may be absent.
func Select(tree fs.FS, wanted []string, optional ...string) ([]Module, error) {
	deps, err := readDependencies(tree)
	if err != nil {
		return nil, err
	}
	builtin, err := readBuiltin(tree)
	if err != nil {
		return nil, err
	}
	var order []string
	chains := map[string]int{}
	for i, group := range wanted {
		for name := range strings.FieldsSeq(group) {
			file, ok := deps.files[canonical(name)]
			switch {
			case ok:
				order = deps.closure(order, file)
				deps.chain(chains, file, i)
			case builtin[canonical(name)], slices.Contains(optional, name):
			default:
				return nil, fmt.Errorf("the kernel has no module %q, neither as a file nor built in: its modules.dep does not name it", name)
			}
		}
	}
	var modules []Module
	for _, file := range order {
		data, err := readModule(tree, file)
		if err != nil {
			return nil, err
		}
		modules = append(modules, Module{Name: plainName(file), Data: data, Chain: chains[file]})
	}
	return modules, nil
}

// dependencies is modules.dep: paths relative to the module directory.
type dependencies struct {
	files map[string]string   // canonical name -> path
	needs map[string][]string // path -> paths
}

// closure appends file and all that it needs to order, needed ones first.
// modules.dep lists the whole closure of a module in the order of its unloading.
func (d dependencies) closure(order []string, file string) []string {
	if slices.Contains(order, file) {
		return order
	}
	for _, need := range slices.Backward(d.needs[file]) {
		order = d.closure(order, need)
	}
	return append(order, file)
}

// chain puts file and all that it needs into one chain, with those that are in
// a chain with any of them already.
func (d dependencies) chain(chains map[string]int, file string, number int) {
	members := append([]string{file}, d.needs[file]...)
	for _, m := range members {
		if old, ok := chains[m]; ok {
			for other, c := range chains {
				if c == old {
					chains[other] = number
				}
			}
		}
	}
	for _, m := range members {
		chains[m] = number
	}
}

func readDependencies(tree fs.FS) (dependencies, error) {
	data, err := fs.ReadFile(tree, "modules.dep")
	if err != nil {
		return dependencies{}, fmt.Errorf("reading the kernel's list of modules: %w", err)
	}
	d := dependencies{files: map[string]string{}, needs: map[string][]string{}}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		file, needs, ok := strings.Cut(s.Text(), ":")
		if !ok {
			return d, fmt.Errorf("modules.dep has a line without a colon: %q", s.Text())
		}
		d.files[canonical(plainName(file))] = file
		d.needs[file] = strings.Fields(needs)
	}
	return d, nil
}

func readBuiltin(tree fs.FS) (map[string]bool, error) {
	data, err := fs.ReadFile(tree, "modules.builtin")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the kernel's list of built-in modules: %w", err)
	}
	builtin := map[string]bool{}
	for line := range strings.Lines(string(data)) {
		builtin[canonical(plainName(strings.TrimSpace(line)))] = true
	}
	return builtin, nil
}

func readModule(tree fs.FS, file string) ([]byte, error) {
	data, err := fs.ReadFile(tree, file)
	if err != nil {
		return nil, fmt.Errorf("reading a kernel module: %w", err)
	}
	var r io.Reader = bytes.NewReader(data)
	switch path.Ext(file) {
	case ".ko":
		return data, nil
	case ".xz":
		r, err = xz.NewReader(r)
	case ".zst":
		var z *zstd.Decoder
		if z, err = zstd.NewReader(r); err == nil {
			defer z.Close()
			r = z
		}
	default:
		err = errors.New("its compression is neither xz nor zstd")
	}
	if err == nil {
		data, err = io.ReadAll(r)
	}
	if err != nil {
		return nil, fmt.Errorf("decompressing the kernel module %s: %w", file, err)
	}
	return data, nil
}

// plainName is the file name of a module without its compression.
func plainName(file string) string {
	name := path.Base(file)
	return strings.TrimSuffix(strings.TrimSuffix(name, ".xz"), ".zst")
}

// canonical treats - and _ alike, as the kernel does.
func canonical(name string) string {
	return strings.ReplaceAll(strings.TrimSuffix(name, ".ko"), "-", "_")
}
