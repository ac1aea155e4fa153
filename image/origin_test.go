package image_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/image"
)

// installFrom installs an image that came from origin, with a root.
func installFrom(t *testing.T, s *image.Store, name, content, origin string) *image.Image {
	t.Helper()
	img, err := s.Install(t.Context(), writeNamed(t, name, content, nil))
	if err != nil {
		t.Fatal(err)
	}
	root, err := s.RootLink(img)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/nowhere", root); err != nil {
		t.Fatal(err)
	}
	if err := s.SetOrigin(origin, img); err != nil {
		t.Fatal(err)
	}
	return img
}

func links(t *testing.T, s *image.Store) (count int) {
	t.Helper()
	for _, pattern := range []string{".roots/*", ".origins/*"} {
		found, err := filepath.Glob(filepath.Join(s.Dir(), pattern))
		if err != nil {
			t.Fatal(err)
		}
		count += len(found)
	}
	return count
}

func TestAnOriginLeadsToItsLastImage(t *testing.T) {
	s := openStore(t)
	if img, err := s.ByOrigin("here"); img != nil || err != nil {
		t.Errorf("in an empty store: %v, %v", img, err)
	}
	first := installFrom(t, s, "a", "1", "here")
	other := installFrom(t, s, "b", "2", "there")
	for origin, want := range map[string]*image.Image{"here": first, "there": other} {
		if img, err := s.ByOrigin(origin); err != nil || img.Digest != want.Digest {
			t.Errorf("%s: %v, %v", origin, img, err)
		}
	}
	second := installFrom(t, s, "a", "3", "here")
	if img, err := s.ByOrigin("here"); err != nil || img.Digest != second.Digest {
		t.Errorf("after a new build: %v, %v", img, err)
	}
	// Roots and origins are no images.
	if images, err := s.List(); err != nil || len(images) != 3 {
		t.Errorf("List gives %v, %v", images, err)
	}
}

func TestRootsAndOriginsGoWithTheirImage(t *testing.T) {
	s := openStore(t)
	installFrom(t, s, "a", "1", "first")
	installFrom(t, s, "a", "2", "second")
	kept := installFrom(t, s, "b", "3", "third")
	// GC removes the older of "a".
	if _, err := s.GC(nil); err != nil || links(t, s) != 4 {
		t.Errorf("%d links left, %v; want 4", links(t, s), err)
	}
	if err := s.Remove("a", nil); err != nil || links(t, s) != 2 {
		t.Errorf("%d links left, %v; want 2", links(t, s), err)
	}
	if img, err := s.ByOrigin("second"); img != nil || err != nil {
		t.Errorf("the origin of a removed image: %v, %v", img, err)
	}
	if img, err := s.ByOrigin("third"); err != nil || img.Digest != kept.Digest {
		t.Errorf("the origin of the kept image: %v, %v", img, err)
	}
	// An image that disappeared in another way leaves links until the next gc.
	if err := os.RemoveAll(kept.Dir); err != nil {
		t.Fatal(err)
	}
	if img, err := s.ByOrigin("third"); img != nil || err != nil {
		t.Errorf("the origin of a lost image: %v, %v", img, err)
	}
	if _, err := s.GC(nil); err != nil || links(t, s) != 0 {
		t.Errorf("%d links left, %v", links(t, s), err)
	}
}

func TestTheLastInstalledIsTheNewest(t *testing.T) {
	s := openStore(t)
	start := time.Now().Add(-time.Minute)
	var first *image.Image
	var sources []string
	for _, content := range []string{"1", "2"} {
		src := writeNamed(t, "a", content, nil)
		// Nix gives all its files this time.
		if err := os.Chtimes(filepath.Join(src, image.ManifestFile), time.Unix(1, 0), time.Unix(1, 0)); err != nil {
			t.Fatal(err)
		}
		img, err := s.Install(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if img.Installed.Before(start) {
			t.Errorf("%s was installed %v", img.Ref(), img.Installed)
		}
		if first == nil {
			first = img
		}
		sources = append(sources, src)
	}
	if _, err := s.Install(t.Context(), sources[0]); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Get("a"); err != nil || img.Digest != first.Digest {
		t.Errorf("the newest is %v, %v; want %s", img, err, first.Ref())
	}
	info, err := os.Stat(filepath.Join(sources[0], image.ManifestFile))
	if err != nil || !info.ModTime().Equal(time.Unix(1, 0)) {
		t.Errorf("the source's time became %v, %v", info.ModTime(), err)
	}
}
