package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio"

	"github.com/sourcery-zone/sandbox/image/initrd"
)

// plainFile is a file or link that goes over the store of a plain guest.
type plainFile struct {
	name string
	mode fs.FileMode
	data []byte
	link string
}

const units = "etc/systemd/system/"

// networkFiles give a plain guest the network that our agent brings up itself.
func networkFiles() []plainFile {
	return []plainFile{
		{name: "etc/systemd/network/80-bench.network", mode: 0o644, data: []byte("[Match]\nType=ether\n\n[Network]\nDHCP=ipv4\n")},
		{name: units + "multi-user.target.wants/systemd-networkd.service", link: "/usr/lib/systemd/system/systemd-networkd.service"},
	}
}

// updatedFiles say that what systemd makes anew when /usr has changed (the
// linker's cache, the hardware database) is up to date, as it is in NixOS by
// construction. An image of Debian's packages has no such files, so that a
// plain one does that work at each boot.
func updatedFiles() []plainFile {
	return []plainFile{{name: "etc/.updated", mode: 0o644}, {name: "var/.updated", mode: 0o644}}
}

// sshdWord is what a plain guest writes to its console when sshd listens. Before
// that, every connection from outside would only disturb its start.
const sshdWord = "bench: sshd listens"

// sshdFiles make a plain guest say when sshd listens.
func sshdFiles() []plainFile {
	unit := fmt.Sprintf("[Service]\nExecStartPost=/bin/sh -c 'echo \"%s\" >/dev/console'\n", sshdWord)
	return []plainFile{{name: units + "ssh.service.d/bench.conf", mode: 0o644, data: []byte(unit)}}
}

// systemWord is what a plain guest writes to its console when systemd is done,
// which our agent learns in the same way.
const systemWord = "bench: the system is "

// systemFiles make a plain guest say when systemd is done.
func systemFiles() []plainFile {
	unit := fmt.Sprintf("[Service]\nExecStart=/bin/sh -c 'echo \"%s$(systemctl is-system-running --wait)\" >/dev/console'\n", systemWord)
	return []plainFile{
		{name: units + "bench-system.service", mode: 0o644, data: []byte(unit)},
		{name: units + "multi-user.target.wants/bench-system.service", link: "../bench-system.service"},
	}
}

// hostKeyFiles spare a plain guest the making of keys, which would take it
// seconds, and which an installed system does once in its life.
func hostKeyFiles(dir string) ([]plainFile, error) {
	var files []plainFile
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		path := filepath.Join(dir, "ssh_host_"+kind+"_key")
		if _, err := os.Stat(path); err == nil {
			// another measurement of this run has made it
		} else if err := command("ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "bench", "-f", path); err != nil {
			return nil, err
		}
		for suffix, mode := range map[string]fs.FileMode{"": 0o600, ".pub": 0o644} {
			data, err := os.ReadFile(path + suffix)
			if err != nil {
				return nil, err
			}
			files = append(files, plainFile{name: "etc/ssh/" + filepath.Base(path) + suffix, mode: mode, data: data})
		}
	}
	return files, nil
}

// writePlainInitrd makes an initial RAM disk of the image's modules, without
// its agent, and returns its path.
func (b *bench) writePlainInitrd(ctx context.Context, name string, files []plainFile) (string, error) {
	init, err := b.buildPlainInit(ctx)
	if err != nil {
		return "", err
	}
	original, err := os.Open(b.img.Initrd())
	if err != nil {
		return "", err
	}
	defer original.Close()
	modules, err := readModules(original)
	if err != nil {
		return "", fmt.Errorf("reading the image's initial RAM disk: %w", err)
	}
	path := filepath.Join(b.dir, name+".img")
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	err = initrd.Write(f, initrd.Contents{Agent: init, Modules: modules})
	if err == nil {
		// The kernel unpacks archives one after the other.
		err = writeFiles(f, files)
	}
	return path, errors.Join(err, f.Close())
}

// plainInit is the program that is the first process of plain guests.
const plainInit = "bench/plaininit"

// buildPlainInit returns plaininit, and builds it unless it is beside this
// program, where there may be no compiler.
func (b *bench) buildPlainInit(ctx context.Context) ([]byte, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if built, err := os.ReadFile(filepath.Join(filepath.Dir(self), filepath.Base(plainInit))); err == nil {
		return built, nil
	}
	path := filepath.Join(b.dir, filepath.Base(plainInit))
	if err := build(ctx, plainInit, path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

// readModules takes the kernel modules out of an initial RAM disk of ours, in
// the order in which they are to be loaded.
func readModules(r io.Reader) ([]initrd.Module, error) {
	data := map[string][]byte{}
	for archive := cpio.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if name, ok := strings.CutPrefix(h.Name, "modules/"); ok {
			if data[name], err = io.ReadAll(archive); err != nil {
				return nil, err
			}
		}
	}
	var modules []initrd.Module
	for name := range strings.FieldsSeq(string(data["order"])) {
		modules = append(modules, initrd.Module{Name: name, Data: data[name]})
	}
	if len(modules) == 0 {
		return nil, errors.New("it holds no modules")
	}
	return modules, nil
}

// writeFiles writes an archive that has the files below /files.
func writeFiles(w io.Writer, files []plainFile) error {
	archive := cpio.NewWriter(w)
	dirs := map[string]bool{}
	inode := int64(1)
	add := func(h *cpio.Header, data []byte) error {
		inode++
		h.Inode, h.Links, h.Size = inode, 1, int64(len(data))
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		_, err := archive.Write(data)
		return err
	}
	for _, f := range files {
		name := path.Join("files", f.name)
		for _, dir := range parents(name) {
			if dirs[dir] {
				continue
			}
			dirs[dir] = true
			if err := add(&cpio.Header{Name: dir, Mode: cpio.TypeDir | 0o755}, nil); err != nil {
				return err
			}
		}
		h, data := &cpio.Header{Name: name, Mode: cpio.TypeReg | cpio.FileMode(f.mode)}, f.data
		if f.link != "" {
			h.Mode, h.Linkname, data = cpio.TypeSymlink|0o777, f.link, []byte(f.link)
		}
		if err := add(h, data); err != nil {
			return err
		}
	}
	return archive.Close()
}

// parents are the directories that lead to a file, the outermost first.
func parents(name string) []string {
	var dirs []string
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		dirs = append(dirs, dir)
	}
	slices.Reverse(dirs)
	return dirs
}

// makeLogin makes a key pair for ssh and returns the private half's path.
func makeLogin(dir string) (string, error) {
	path := filepath.Join(dir, "login")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "bench", "-f", path)
}

func command(name string, args ...string) error {
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s (of the package openssh-client): %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
