package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
)

// TestGuestsOfMkimage boots guests from images that nix/mkimage has put
// together, with kernel, modules and store of the default image in the place of
// what Nix would have built, and with a program that prepares the root: /etc of
// NixOS is not there before its own has run.
func TestGuestsOfMkimage(t *testing.T) {
	dirs := guestDirs(t)
	store, err := image.OpenStore(dirs.Images())
	if err != nil {
		t.Fatal(err)
	}
	from, err := store.Get(testImage())
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(dirs.Cache, "images", "rootfs", from.Manifest.Provenance.Inputs[:16], "modules")
	if _, err := os.Stat(modules); err != nil {
		t.Skipf("the kernel's modules are not in the cache (%v): bin/sandbox image build --recipe debian --force", err)
	}
	bin := buildBinaries(t)
	if out, err := exec.Command("go", "build", "-o", bin, "../../nix/mkimage").CombinedOutput(); err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}

	// run makes an image with that program and runs a command in a guest of it.
	run := func(t *testing.T, prepare string) (output string, err error) {
		work, data := t.TempDir(), t.TempDir()
		runtime, err := os.MkdirTemp("", "sb") // below t.TempDir, sockets' paths are too long
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(runtime) })
		if out, err := exec.Command("cp", from.Store(), filepath.Join(work, "store.erofs")).CombinedOutput(); err != nil {
			t.Fatalf("copying the store: %v\n%s", err, out)
		}
		m := from.Manifest
		m.Name = "made"
		m.Kernel, m.Initrd, m.Store.File = image.File{}, image.File{}, image.File{}
		registration := filepath.Join(data, "registration")
		attrs, err := json.Marshal(map[string]any{"spec": map[string]any{
			"manifest": m, "guest": boot.Setup{Prepare: prepare, ListenSSH: 22},
			"kernel": from.Kernel(), "modulesTree": modules, "agent": filepath.Join(bin, "sandbox-agent"), "registration": registration,
			"modules":         []string{"virtio_pci", "virtio_console", "virtio_blk", "crc32c_intel", "erofs", "overlay", "ext4", "fuse", "virtiofs", "virtio_net", "af_packet"},
			"optionalModules": []string{"crc32c_intel"},
		}})
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range map[string]string{
			registration:                       "/nix/store/0a-hello-2.12\nsha256:00\n5\n\n0\n",
			filepath.Join(data, ".attrs.json"): string(attrs),
		} {
			if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.Command(filepath.Join(bin, "mkimage"), "image", filepath.Join(data, ".attrs.json"), work).CombinedOutput(); err != nil {
			t.Fatalf("mkimage: %v\n%s", err, out)
		}
		own, err := image.OpenStore(filepath.Join(data, "sandbox", "images"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := own.Install(t.Context(), work); err != nil {
			t.Fatal(err)
		}
		shell := exec.Command("sh", "-c", `sandbox run -d --name one --image made && sandbox exec one -- cat /etc/hostname && sandbox logs one; status=$?; sandbox rm --force one; exit $status`)
		shell.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "HOME="+work,
			"XDG_DATA_HOME="+data, "XDG_STATE_HOME="+filepath.Join(data, "state"), "XDG_RUNTIME_DIR="+runtime)
		out, err := shell.CombinedOutput()
		return string(out), err
	}

	t.Run("prepared", func(t *testing.T) {
		out, err := run(t, "/usr/bin/env") // which prints what the agent has given it to the console
		if err != nil || !strings.Contains(out, "PATH=/usr/bin:/bin:/run/current-system/sw/bin") {
			t.Errorf("the program should have run, and the guest started: %v\n%s", err, out)
		}
		// The host's configuration comes over what it has made.
		if !strings.Contains(out, "\none\n") {
			t.Errorf("the guest should be called one:\n%s", out)
		}
	})
	t.Run("not prepared", func(t *testing.T) {
		out, err := run(t, "/usr/bin/false")
		if err == nil || !strings.Contains(out, "the image's own preparation /usr/bin/false failed") {
			t.Errorf("the start should fail and say why: %v\n%s", err, out)
		}
	})
}
