package image_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

func openStore(t *testing.T) *image.Store {
	t.Helper()
	s, err := image.OpenStore(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func install(t *testing.T, s *image.Store, name, content string) *image.Image {
	t.Helper()
	img, err := s.Install(t.Context(), writeNamed(t, name, content, nil))
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// list gives the references of all images; damaged ones start with "!".
func list(t *testing.T, s *image.Store) []string {
	t.Helper()
	images, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var refs []string
	for _, img := range images {
		if img.Broken != nil {
			refs = append(refs, "!"+img.Ref())
			continue
		}
		refs = append(refs, img.Ref())
	}
	return refs
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(fmt.Sprint(err, remedy.Of(err)), p) {
			t.Errorf("the error %q does not contain %q", fmt.Sprint(err, remedy.Of(err)), p)
		}
	}
}

func TestInstallIsIdempotentAndKeepsTheSource(t *testing.T) {
	s := openStore(t)
	src := writeNamed(t, "tiny", "store", nil)
	first, err := s.Install(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	second, err := s.Install(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if first.Dir != second.Dir || first.Digest != second.Digest {
		t.Errorf("%s and %s", first.Dir, second.Dir)
	}
	if want := filepath.Join(s.Dir(), "tiny@"+first.Digest[:12]); first.Dir != want {
		t.Errorf("installed in %s, want %s", first.Dir, want)
	}
	if _, err := image.Load(src); err != nil {
		t.Errorf("the source: %v", err)
	}
}

func TestInterruptedInstallLeavesNoImage(t *testing.T) {
	s := openStore(t)
	src := writeNamed(t, "tiny", strings.Repeat("x", 1<<20), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Install(ctx, src); err == nil {
		t.Fatal("a cancelled install succeeded")
	}
	if refs := list(t, s); len(refs) != 0 {
		t.Errorf("images after an interrupted install: %v", refs)
	}
	// What a killed install leaves is invisible, and goes with gc.
	if err := os.MkdirAll(filepath.Join(s.Dir(), ".new-123", "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if refs := list(t, s); len(refs) != 0 {
		t.Errorf("images after a killed install: %v", refs)
	}
	if _, err := s.GC(nil); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), ".new-*")); len(left) != 0 {
		t.Errorf("gc left %v", left)
	}
	if _, err := s.Install(t.Context(), src); err != nil {
		t.Errorf("installing afterwards: %v", err)
	}
}

func TestInstallRefusesADamagedSource(t *testing.T) {
	s := openStore(t)
	src := writeImage(t, func(m map[string]any) { in(m, "kernel")["sha256"] = strings.Repeat("0", 64) })
	_, err := s.Install(t.Context(), src)
	wantError(t, err, "installing the image tiny@", "kernel vmlinuz has sha256")
	if refs := list(t, s); len(refs) != 0 {
		t.Errorf("it is there nevertheless: %v", refs)
	}
}

func TestInstallRepairsADamagedImage(t *testing.T) {
	s := openStore(t)
	src := writeNamed(t, "tiny", "store", nil)
	img, err := s.Install(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(img.Store()); err != nil {
		t.Fatal(err)
	}
	if refs := list(t, s); !slices.Equal(refs, []string{"!" + img.Ref()}) {
		t.Errorf("the damaged image is listed as %v", refs)
	}
	_, err = s.Get("tiny")
	wantError(t, err, "is damaged", "store.erofs is missing", "[replace-image "+img.Ref()+"]")
	if _, err := s.Install(t.Context(), src); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("tiny"); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

func TestConcurrentInstalls(t *testing.T) {
	s := openStore(t)
	sources := []string{writeNamed(t, "a", "1", nil), writeNamed(t, "b", "2", nil)}
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for i := range 8 {
		wg.Go(func() {
			_, err := s.Install(t.Context(), sources[i%2])
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
	if refs := list(t, s); len(refs) != 2 {
		t.Errorf("got %v", refs)
	}
}

func TestGet(t *testing.T) {
	s := openStore(t)
	_, err := s.Get("")
	wantError(t, err, "[build-image]")
	_, err = s.Get("debian")
	wantError(t, err, `"debian"`, "[build-image]")

	one := install(t, s, "debian", "1")
	if img, err := s.Get(""); err != nil || img.Digest != one.Digest {
		t.Errorf("the only image is not the default: %v", err)
	}
	other := install(t, s, "nixos", "2")
	_, err = s.Get("")
	wantError(t, err, "no default image", "debian, nixos", "[choose-image]")
	_, err = s.Get("arch")
	wantError(t, err, `"arch"`, one.Ref(), other.Ref())

	for _, ref := range []string{"nixos", other.Ref(), "nixos@" + other.Digest, "nixos@" + other.Digest[:3]} {
		if img, err := s.Get(ref); err != nil || img.Digest != other.Digest {
			t.Errorf("Get(%q): %v", ref, err)
		}
	}
}

func TestNameMeansTheNewest(t *testing.T) {
	s := openStore(t)
	install(t, s, "debian", "1")
	newer := install(t, s, "debian", "2")
	if img, err := s.Get("debian"); err != nil || img.Digest != newer.Digest {
		t.Errorf("got %v, %v; want %s", img, err, newer.Ref())
	}
	if refs := list(t, s); refs[0] != newer.Ref() {
		t.Errorf("the newest is not the first of %v", refs)
	}
}

func TestDefault(t *testing.T) {
	s := openStore(t)
	first := install(t, s, "debian", "1")
	install(t, s, "nixos", "2")
	wantError(t, s.SetDefault("arch"), `"arch"`)
	wantError(t, s.SetDefault(""), "no image is named")
	if err := s.SetDefault("debian"); err != nil {
		t.Fatal(err)
	}
	newer := install(t, s, "debian", "3")
	if img, err := s.Get(""); err != nil || img.Digest != newer.Digest {
		t.Errorf("a default by name does not follow the newest: %v", err)
	}
	if err := s.SetDefault(first.Ref()); err != nil {
		t.Fatal(err)
	}
	if img, err := s.Get(""); err != nil || img.Digest != first.Digest {
		t.Errorf("a default by digest moved: %v", err)
	}
	if err := s.Remove(first.Ref(), nil); err != nil {
		t.Fatal(err)
	}
	_, err := s.Get("")
	wantError(t, err, "no default image")
}

func TestRemove(t *testing.T) {
	s := openStore(t)
	a, b := install(t, s, "debian", "1"), install(t, s, "debian", "2")
	wantError(t, s.Remove("debian", nil), "could be any of", a.Ref(), b.Ref())
	wantError(t, s.Remove(a.Ref(), []string{a.Digest}), a.Ref(), "used by a sandbox", "[remove-its-users]")
	wantError(t, s.Remove("debian@ffffffffffff", nil), "there is no image")
	if err := s.Remove(a.Ref(), []string{b.Digest}); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("debian", nil); err != nil {
		t.Fatal(err)
	}
	if refs := list(t, s); len(refs) != 0 {
		t.Errorf("left: %v", refs)
	}
}

func TestRemoveDamagedImage(t *testing.T) {
	s := openStore(t)
	img := install(t, s, "debian", "1")
	manifest := filepath.Join(img.Dir, image.ManifestFile)
	// It cannot be written to, except by root.
	if err := errors.Join(os.Remove(manifest), os.WriteFile(manifest, []byte("{}"), 0o644)); err != nil {
		t.Fatal(err)
	}
	wantError(t, s.Remove(img.Ref(), []string{img.Digest}), "used by a sandbox")
	if err := s.Remove(img.Ref(), nil); err != nil {
		t.Fatal(err)
	}
}

func TestGC(t *testing.T) {
	s := openStore(t)
	old, inUse := install(t, s, "debian", "1"), install(t, s, "debian", "2")
	pinned, newest := install(t, s, "debian", "3"), install(t, s, "debian", "4")
	single, damaged := install(t, s, "nixos", "5"), install(t, s, "arch", "6")
	if err := os.Remove(damaged.Kernel()); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDefault(pinned.Ref()); err != nil {
		t.Fatal(err)
	}
	removed, err := s.GC([]string{inUse.Digest})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range removed {
		got = append(got, r.Ref+": "+r.Reason)
	}
	want := []string{
		damaged.Ref() + ": it is damaged",
		old.Ref() + ": there is a newer one, " + newest.Ref(),
	}
	if !slices.Equal(got, want) {
		t.Errorf("removed %q, want %q", got, want)
	}
	for _, img := range []*image.Image{inUse, pinned, newest, single} {
		if _, err := s.Get(img.Ref()); err != nil {
			t.Error(err)
		}
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "images")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	store, err := image.OpenStore(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	// A builder's directory becomes an image with
	//	img, err := store.Install(ctx, builtDir)
	// and a sandbox boots from img.Kernel(), img.Initrd() and img.Store().
	_, err = store.Get("")
	fmt.Println(err)
	// Output: there is no image yet
}
