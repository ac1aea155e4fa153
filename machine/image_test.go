package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
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
	if _, err := h.Image(image.Ref{Name: "none"}); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[build-image]") {
		t.Errorf("a name that is not installed: %v", err)
	}
}

func TestAStartTellsWhetherTheGuestFailed(t *testing.T) {
	for guest, end := range map[bool]error{
		true:  fmt.Errorf("in the end: %w", api.Errorf(api.CodeGuest, "not ready")),
		false: errors.New("QEMU ended"),
	} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		api.NewReporter(w)(api.Failed(end))
		w.Close()
		err = follow(t.Context(), r, StartOptions{})
		r.Close()
		if err == nil || err.Error() != end.Error() || errors.Is(err, api.ErrGuest) != guest {
			t.Errorf("%v gave %T %v", end, err, err)
		}
	}
}
