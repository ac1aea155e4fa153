package virtiofs

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What changes on this machine is seen in the guest within a second, as its kernel remembers nothing for longer.
func TestGuestRemembersASecond(t *testing.T) {
	c := realConfig(t, os.Geteuid())
	fill(t, c.Directory.Path(), os.Geteuid())
	s, err := realDaemon(t).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, s) })
	g := guest{connect(t, c.Socket), t}
	for _, name := range []string{"file", "dir"} {
		entry, attributes, err := g.Remembers(1, name)
		if err != nil || entry > time.Second || attributes > time.Second {
			t.Errorf("the name %s is remembered for %v, and its attributes for %v: %v", name, entry, attributes, err)
		}
	}
}

// Whatever cannot be named in one call cannot be judged: what is further down is not changed.
func TestNothingIsChangedBeyondTheLongestPath(t *testing.T) {
	g, _ := judged(t, &events{})
	name, at := strings.Repeat("x", 255), uint64(1)
	for depth := range unix.PathMax / 256 {
		below, err := g.Mkdir(at, name)
		if err != nil {
			t.Fatalf("a directory with a path of %d bytes: %v", (depth+1)*256-1, err)
		}
		at = below
	}
	if _, err := g.Mkdir(at, "x"); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a directory with a path of 4,097 bytes: %v", err)
	}
	if _, _, err := g.Create(at, "x", unix.O_WRONLY); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("a file: %v", err)
	}
}
