package image_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/image"
)

func TestCopyTakesWhatIsInTheDirectoryOnly(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("kernel!"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spoil func(dir string, img *image.Image) error
		want  string
	}{
		"nothing wrong": {func(string, *image.Image) error { return nil }, ""},
		"a link out": {func(_ string, img *image.Image) error {
			if err := os.Remove(img.Kernel()); err != nil {
				return err
			}
			return os.Symlink(outside, img.Kernel())
		}, "escapes"},
		"a fifo": {func(_ string, img *image.Image) error {
			if err := os.Remove(img.Initrd()); err != nil {
				return err
			}
			return unix.Mkfifo(img.Initrd(), 0o600)
		}, "not a regular file"},
		"a larger store": {func(_ string, img *image.Image) error { return os.Truncate(img.Store(), 1<<40) }, "incomplete or was changed"},
		"no manifest":    {func(dir string, _ *image.Image) error { return os.Remove(filepath.Join(dir, image.ManifestFile)) }, "there is no manifest.json"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeImage(t, nil)
			img, err := image.Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := tt.spoil(dir, img); err != nil {
				t.Fatal(err)
			}
			copied, err := image.Copy(t.Context(), dir, t.TempDir())
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want an error with %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			// Whatever its owner does from now on.
			if err := os.WriteFile(img.Kernel(), []byte("another"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := copied.Verify(context.Background()); err != nil || copied.Digest != img.Digest {
				t.Errorf("%s, %v; want %s", copied.Digest, err, img.Digest)
			}
		})
	}
}
