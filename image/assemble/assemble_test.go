package assemble_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/image/assemble"
	"github.com/sourcery-zone/sandbox/image/initrd"
)

// parts are those of an image that package image takes, in a directory that has
// its kernel and its store.
func parts(t *testing.T) (dir string, p assemble.Parts) {
	t.Helper()
	dir = t.TempDir()
	if err := errors.Join(
		assemble.Kernel(dir, []byte("kernel")),
		os.WriteFile(filepath.Join(dir, assemble.StoreFile), []byte("store"), 0o444),
	); err != nil {
		t.Fatal(err)
	}
	return dir, assemble.Parts{
		Manifest: image.Manifest{
			Version: image.Version, Name: "box", System: "x86_64-linux",
			Store: image.StoreFile{Format: "erofs", Mount: "/"}, Init: "/sbin/init",
			User:       image.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/bin/sh"},
			Agent:      image.Agent{Port: 1024},
			Provenance: image.Provenance{Builder: "test", Built: time.Unix(1, 0).UTC()},
		},
		Setup: boot.Setup{ListenSSH: 22}, Agent: []byte("the agent"),
		Modules: []initrd.Module{{Name: "a.ko", Data: []byte("a module")}},
	}
}

func TestAnAssembledImageCanBeLoaded(t *testing.T) {
	dir, p := parts(t)
	var notes []string
	p.Note = func(text string) { notes = append(notes, text) }
	m, err := assemble.Image(t.Context(), dir, p)
	if err != nil {
		t.Fatal(err)
	}
	img, err := image.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := img.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	if img.Manifest.Initrd != m.Initrd || img.Manifest.Kernel.Size != 6 || img.Manifest.Store.Size != 5 {
		t.Errorf("the manifest is %+v, and was said to be %+v", img.Manifest, m)
	}
	archive, err := os.ReadFile(img.Initrd())
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"the agent", "a module", `"listenSSH":22`, `"shell":"/bin/sh"`} {
		if !bytes.Contains(archive, []byte(part)) {
			t.Errorf("the initial RAM disk lacks %q", part)
		}
	}
	if len(notes) != 3 {
		t.Errorf("the notes are %q", notes)
	}
	if _, err := assemble.Image(t.Context(), dir, p); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another image: %v", err)
	}
}

func TestPartsThatMakeNoImage(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(dir string, p *assemble.Parts)
		want  string
	}{
		"no agent": {func(_ string, p *assemble.Parts) { p.Agent = nil }, "needs an agent"},
		"no store": {func(dir string, _ *assemble.Parts) { _ = os.Remove(filepath.Join(dir, assemble.StoreFile)) }, assemble.StoreFile},
		"no user":  {func(_ string, p *assemble.Parts) { p.Manifest.User = image.User{} }, "make no valid image: "},
	} {
		t.Run(name, func(t *testing.T) {
			dir, p := parts(t)
			tt.spoil(dir, &p)
			if _, err := assemble.Image(t.Context(), dir, p); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if _, err := image.Load(dir); err == nil {
				t.Error("there is an image")
			}
		})
	}
}
