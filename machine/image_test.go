package machine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
)

func TestTheImageOfADirectoryIsNotAnInstalledOne(t *testing.T) {
	h := testHost(t)
	create(t, h, "installed")
	c := testConfig("beside")
	// The part behind the @ is no digest.
	c.Image = image.Ref{Dir: filepath.Join(t.TempDir(), "image@1111")}
	if _, err := h.Create(c); err != nil {
		t.Fatal(err)
	}
	used, err := h.ImageInUse()
	if want := []string{strings.Repeat("0", 64)}; err != nil || !slices.Equal(used, want) {
		t.Errorf("in use are %v, %v, want %v", used, err, want)
	}
	if _, err := h.Image(c.Image); err == nil || !strings.Contains(err.Error(), c.Image.Dir) {
		t.Errorf("an empty directory: %v", err)
	}
	if _, err := h.Image(image.Ref{Name: "none"}); err == nil || !strings.Contains(err.Error(), "sandbox image build") {
		t.Errorf("a name that is not installed: %v", err)
	}
}

func TestAStartTellsWhetherTheGuestFailed(t *testing.T) {
	for guest, line := range map[bool]string{
		true:  `{"error":"not ready","guest":true}`,
		false: `{"error":"QEMU ended"}`,
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
		w.Close()
		err = follow(t.Context(), r, StartOptions{})
		r.Close()
		if _, got := errors.AsType[*GuestError](err); err == nil || got != guest {
			t.Errorf("%s gave %T %v", line, err, err)
		}
	}
}
