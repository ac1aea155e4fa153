package image_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
)

// writeImage makes a small image in a new directory. change may spoil the
// manifest before it is written.
func writeImage(t *testing.T, change func(m map[string]any)) string {
	t.Helper()
	return writeNamed(t, "tiny", "store", change)
}

func writeNamed(t *testing.T, name, store string, change func(m map[string]any)) string {
	t.Helper()
	dir := t.TempDir()
	describe := func(file, content string) image.File {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := image.Describe(t.Context(), dir, file)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	m := image.Manifest{
		Version: image.Version, Name: name, System: ownSystem(),
		Kernel: describe("vmlinuz", "kernel"), Initrd: describe("initrd.img", "initrd"),
		Store:   image.StoreFile{File: describe("store.erofs", store), Format: "erofs", Label: "s", Mount: "/"},
		Cmdline: []string{"console=hvc0"}, Init: "/sbin/init",
		User:       image.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/usr/bin/zsh"},
		Agent:      image.Agent{Port: 1024},
		Provenance: image.Provenance{Builder: "test", Built: time.Unix(1, 0).UTC()},
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		var generic map[string]any
		if err := json.Unmarshal(data, &generic); err != nil {
			t.Fatal(err)
		}
		change(generic)
		if data, err = json.Marshal(generic); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, image.ManifestFile), data, 0o644); err != nil {
		t.Fatal(err)
	}
	return dir
}

func in(m map[string]any, key string) map[string]any { return m[key].(map[string]any) }

func TestLoadTellsWhatIsWrong(t *testing.T) {
	digest := strings.Repeat("0", 64)
	for _, c := range []struct {
		name   string
		change func(m map[string]any)
		want   string
	}{
		{"no version", func(m map[string]any) { delete(m, "version") }, "has no version"},
		{"newer version", func(m map[string]any) { m["version"], m["shiny"] = 2, true }, "version 2, and this program reads version 1"},
		{"unknown field", func(m map[string]any) { m["kernle"] = "x" }, `unknown field "kernle"`},
		{"unknown nested field", func(m map[string]any) { in(m, "store")["colour"] = "x" }, `unknown field "colour"`},
		{"wrong type", func(m map[string]any) { m["name"] = 3 }, "cannot be understood"},
		{"bad name", func(m map[string]any) { m["name"] = "a/b" }, `"a/b" is not a name for an image`},
		{"other system", func(m map[string]any) { m["system"] = "riscv64-linux" }, `system "riscv64-linux"`},
		{"kernel not named", func(m map[string]any) { in(m, "kernel")["file"] = "" }, "kernel: the file is missing"},
		{"missing file", func(m map[string]any) { in(m, "kernel")["file"] = "bzImage" }, "the kernel bzImage is missing"},
		{"path upwards", func(m map[string]any) { in(m, "initrd")["file"] = "../initrd.img" }, `"../initrd.img" leads out`},
		{"absolute path", func(m map[string]any) { in(m, "store")["file"] = "/etc/shadow" }, `"/etc/shadow" leads out`},
		{"file with two roles", func(m map[string]any) { m["initrd"] = m["kernel"] }, "has another role already"},
		{"wrong size", func(m map[string]any) { in(m, "store")["size"] = 77 }, "the store store.erofs has 5 bytes instead of 77"},
		{"no size", func(m map[string]any) { delete(in(m, "store"), "size") }, "size of store.erofs is 0"},
		{"no digest", func(m map[string]any) { in(m, "initrd")["sha256"] = "abc" }, "the sha256 of initrd.img"},
		{"other store format", func(m map[string]any) { in(m, "store")["format"] = "ext4" }, `format "ext4" is unknown`},
		{"relative init", func(m map[string]any) { m["init"] = "sbin/init" }, `init is "sbin/init"`},
		{"winding home", func(m map[string]any) { in(m, "user")["home"] = "/home/../etc" }, "user.home"},
		{"root as user", func(m map[string]any) { in(m, "user")["uid"] = 0 }, "not an ordinary user"},
		{"two words in one", func(m map[string]any) { m["cmdline"] = []string{"a b"} }, `"a b" is not one word`},
		{"word of the host", func(m map[string]any) { m["cmdline"] = []string{"sandbox.key=x"} }, "for the host to say"},
		{"no port", func(m map[string]any) { in(m, "agent")["port"] = 0 }, "agent.port is missing"},
		{"other readiness", func(m map[string]any) { in(m, "readiness")["system"] = "runit" }, `"runit"`},
		{"unknown feature", func(m map[string]any) { m["requires"] = []string{"gpu"} }, `feature "gpu"`},
		{"negative default", func(m map[string]any) { in(m, "defaults")["cpus"] = -1 }, "must not be negative"},
		{"no builder", func(m map[string]any) { in(m, "provenance")["builder"] = "" }, "provenance.builder"},
		{"digest of other content", func(m map[string]any) { in(m, "kernel")["sha256"] = digest }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := writeImage(t, c.change)
			_, err := image.Load(dir)
			if c.want == "" {
				if err != nil {
					t.Fatalf("Load reads no files' content, but says %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want an error with %q", err, c.want)
			}
			if !strings.Contains(err.Error(), dir) {
				t.Errorf("the error does not say which image: %v", err)
			}
		})
	}
}

func TestLoadRefusesWhatIsNoManifest(t *testing.T) {
	for name, text := range map[string]string{
		"not valid JSON":            "{",
		"something after its end":   "",
		"there is no manifest.json": "-",
	} {
		dir := writeImage(t, nil)
		file := filepath.Join(dir, image.ManifestFile)
		switch text {
		case "":
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// A second document is not caught by the check of the version.
			if _, err := image.Parse(append(bytes.TrimSpace(data), " 1"...)); err == nil {
				t.Error("a manifest with something after its end was accepted")
			}
			continue
		case "-":
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		default:
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := image.Load(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q", err, name)
		}
	}
}

func TestLoadRefusesLinksToElsewhere(t *testing.T) {
	dir := writeImage(t, nil)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.Rename(filepath.Join(dir, "vmlinuz"), outside); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(dir, "vmlinuz")); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Load(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a linked file: %v", err)
	}

	dir = writeImage(t, func(m map[string]any) { in(m, "kernel")["file"] = "sub/vmlinuz" })
	if err := os.Symlink(dir, filepath.Join(dir, "sub")); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Load(dir); err == nil || !strings.Contains(err.Error(), "leads out") {
		t.Errorf("a linked directory: %v", err)
	}
}

func TestVerifyFindsAChangedFile(t *testing.T) {
	dir := writeImage(t, nil)
	img, err := image.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Verify(t.Context()); err != nil {
		t.Fatalf("an intact image: %v", err)
	}
	if err := os.WriteFile(img.Store(), []byte("Store"), 0o644); err != nil {
		t.Fatal(err)
	}
	err = img.Verify(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the store store.erofs has sha256") || !strings.Contains(err.Error(), "build it again") {
		t.Errorf("got %v", err)
	}
}

func TestTheAgentReadsWhatTheManifestSays(t *testing.T) {
	img, err := image.Load(writeImage(t, func(m map[string]any) { in(m, "readiness")["system"] = "systemd" }))
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(img.Manifest.Boot(boot.Setup{Prepare: "/sbin/prepare", OpenSSH: true}))
	if err != nil {
		t.Fatal(err)
	}
	want := boot.Image{
		Store: boot.Store{Format: "erofs", Device: "/dev/vda"}, Init: "/sbin/init",
		User:      boot.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/usr/bin/zsh"},
		Readiness: boot.Readiness{System: "systemd"},
		Setup:     boot.Setup{Prepare: "/sbin/prepare", OpenSSH: true},
	}
	if got, err := boot.ParseImage(data); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
}
