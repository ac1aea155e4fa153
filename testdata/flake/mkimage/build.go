package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cavaliergopher/cpio"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/assemble"
	"github.com/sourcery-zone/sandbox/image/erofs"
	"github.com/sourcery-zone/sandbox/image/initrd"
)

// inputs are what the derivation says in its environment.
type inputs struct {
	out, system           string
	kernel, initrd, agent string // files; the modules are taken from initrd
	shell                 string
	packages              string // JSON
	spoil                 string // what to do wrong
}

func environment() inputs {
	in := inputs{
		out: os.Getenv("out"), system: os.Getenv("system"),
		kernel: os.Getenv("kernel"), initrd: os.Getenv("initrd"), agent: os.Getenv("agent"),
		shell: os.Getenv("shell"), packages: os.Getenv("packages"), spoil: os.Getenv("spoil"),
	}
	if in.shell == "" {
		in.shell = "/bin/true"
	}
	return in
}

// built is the time of everything, the one that Nix gives its files.
var built = time.Unix(1, 0).UTC()

func build(in inputs) error {
	fmt.Println("building an image for", in.system)
	switch in.spoil {
	case "failure":
		for line := range 40 {
			fmt.Println("line", line)
		}
		return errors.New("\x1b[31mthis builder fails\x1b[0m by design")
	case "no-directory":
		return os.WriteFile(in.out, []byte("an image?\n"), 0o444)
	}
	if log := os.Getenv("log"); log != "" {
		if err := os.WriteFile(log, []byte("built\n"), 0o444); err != nil {
			return err
		}
	}
	if err := os.Mkdir(in.out, 0o755); err != nil {
		return err
	}
	m := image.Manifest{
		Version: image.Version, Name: "tiny", System: in.system,
		Store: image.StoreFile{Format: "erofs", Label: "tiny", Mount: "/"},
		Init:  "/bin/init", Cmdline: []string{"lsm=landlock"},
		User:       image.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: in.shell},
		Defaults:   image.Defaults{MemoryMiB: 256, CPUs: 1},
		Agent:      image.Agent{Port: 1024},
		Requires:   image.Features(),
		Provenance: image.Provenance{Builder: "nix", Built: built, Flake: "testdata/flake"},
	}
	if err := json.Unmarshal([]byte(in.packages), &m.Provenance.Packages); err != nil {
		return err
	}
	m, err := assembled(in, m)
	if err != nil {
		return err
	}
	return spoil(in, m)
}

func assembled(in inputs, m image.Manifest) (image.Manifest, error) {
	kernel, err := os.ReadFile(in.kernel)
	if err != nil {
		return m, err
	}
	if err := assemble.Kernel(in.out, kernel); err != nil {
		return m, err
	}
	if err := writeStore(filepath.Join(in.out, assemble.StoreFile)); err != nil {
		return m, err
	}
	agent, err := os.ReadFile(in.agent)
	if err != nil {
		return m, err
	}
	modules, err := modulesOf(in.initrd)
	if err != nil {
		return m, err
	}
	return assemble.Image(context.Background(), in.out, assemble.Parts{
		Manifest: m, Setup: boot.Setup{ListenSSH: 22}, Agent: agent, Modules: modules,
	})
}

// modulesOf takes the modules, which are in load order, out of an initial RAM
// disk that is not compressed.
func modulesOf(file string) ([]initrd.Module, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var modules []initrd.Module
	for archive := cpio.NewReader(f); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return modules, nil
		}
		if err != nil {
			return nil, err
		}
		if filepath.Ext(h.Name) != ".ko" {
			continue
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			return nil, err
		}
		modules = append(modules, initrd.Module{Name: filepath.Base(h.Name), Data: data})
	}
}

// writeStore makes this program, under its names, the guest's file system.
func writeStore(name string) error {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	store, err := erofs.Create(f, erofs.Options{Label: "tiny", BuildTime: built, TempDir: os.Getenv("TMPDIR")})
	if err != nil {
		return err
	}
	for _, dir := range []string{"bin", "etc", "home"} {
		if err := store.Add(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: built}, nil); err != nil {
			return err
		}
	}
	passwd := "root:x:0:0:root:/:/bin/true\nagent:x:1000:1000::/home/agent:/bin/true\n"
	for _, file := range []struct {
		name    string
		content []byte
	}{{"bin/init", self}, {"etc/passwd", []byte(passwd)}} {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: file.name, Mode: 0o755, Size: int64(len(file.content)), ModTime: built}
		if err := store.Add(h, bytes.NewReader(file.content)); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin/answer", "bin/true"} {
		if err := store.Add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: "init", ModTime: built}, nil); err != nil {
			return err
		}
	}
	return store.Close()
}

// spoil does what the derivation asks for to the image.
func spoil(in inputs, m image.Manifest) error {
	kernel, manifest := filepath.Join(in.out, assemble.KernelFile), filepath.Join(in.out, image.ManifestFile)
	switch in.spoil {
	case "":
		return nil
	case "no-manifest":
		return os.Remove(manifest)
	case "missing-file":
		if err := os.Remove(kernel); err != nil {
			return err
		}
	case "linked-file":
		if err := errors.Join(os.Remove(kernel), os.Symlink(in.kernel, kernel)); err != nil {
			return err
		}
	case "wrong-size":
		m.Kernel.Size++
	case "wrong-digest":
		m.Kernel.SHA256 = strings.Repeat("0", len(m.Kernel.SHA256))
	case "other-system":
		m.System = map[string]string{"x86_64-linux": "aarch64-linux", "aarch64-linux": "x86_64-linux"}[m.System]
	}
	data, err := m.Encode()
	if err != nil {
		return err
	}
	replace := func(old, new string) { data = bytes.Replace(data, []byte(old), []byte(new), 1) }
	switch in.spoil {
	case "bad-json":
		data = data[:len(data)/2]
	case "bad-version":
		replace(`"version": 1`, `"version": 2`)
	case "unknown-field":
		replace(`"version": 1`, `"version": 1, "colour": "blue"`)
	case "no-user":
		replace(`"uid": 1000`, `"uid": 0`)
	}
	return errors.Join(os.Remove(manifest), os.WriteFile(manifest, data, 0o444))
}
