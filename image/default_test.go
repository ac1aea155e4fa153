package image_test

import (
	"runtime"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
)

// ownSystem is the system of images that this machine runs without emulation.
func ownSystem() string {
	return map[string]string{"amd64": "x86_64-linux", "arm64": "aarch64-linux"}[runtime.GOARCH]
}

func TestDefaultOfEachSystem(t *testing.T) {
	s := openStore(t)
	installFor := func(system, name, content string) *image.Image {
		img, err := s.Install(t.Context(), writeNamed(t, name, content, func(m map[string]any) { m["system"] = system }))
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	arm := installFor("aarch64-linux", "arm", "1")
	_, err := s.GetFor("x86_64-linux", "")
	wantError(t, err, "there is no image", "[build-image]")
	intel := installFor("x86_64-linux", "intel", "2")

	for system, want := range map[string]string{"aarch64-linux": arm.Digest, "x86_64-linux": intel.Digest} {
		if img, err := s.GetFor(system, ""); err != nil || img.Digest != want {
			t.Errorf("the only image of %s is not its default: %v", system, err)
		}
	}
	_, err = s.GetFor("x86_64-linux", "arm")
	wantError(t, err, arm.Ref(), "aarch64-linux", "[other-image]")
	if img, err := s.GetFor("aarch64-linux", "arm"); err != nil || img.Digest != arm.Digest {
		t.Errorf("an image by its name: %v", err)
	}

	installFor("x86_64-linux", "second", "3")
	if err := s.SetDefault("second"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetDefault("arm"); err != nil {
		t.Fatal(err)
	}
	own := map[string]string{"x86_64-linux": "second", "aarch64-linux": "arm"}[ownSystem()]
	if img, err := s.Get(""); err != nil || img.Manifest.Name != own {
		t.Errorf("this machine's default: %v, %v", img, err)
	}
	if img, err := s.GetFor("x86_64-linux", ""); err != nil || img.Manifest.Name != "second" {
		t.Errorf("the default for x86: %v, %v", img, err)
	}
}
