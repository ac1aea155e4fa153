package confine

import (
	"bytes"
	"os"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/process"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// room is one for the program at the path.
func room(t *testing.T, path string) *Room {
	t.Helper()
	parts, err := FindParts(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	user, err := ChooseUser(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	return &Room{Paths: parts.Paths(), Executes: parts.Executes(), User: user}
}

func TestProgramSeesOnlyItsParts(t *testing.T) {
	var out bytes.Buffer
	program := Program{Path: "/bin/bash", Args: []string{"-c", "echo /*; echo /dev/*; echo /usr/*; echo $HOME"}, Stdout: &out}
	p, _, err := Start(t.Context(), program, Spec{Room: room(t, "/bin/bash")}, process.Options{Log: &out})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if got, want := out.String(), "/dev /lib /lib64 /proc /usr\n/dev/null /dev/urandom /dev/zero\n/usr/bin /usr/lib\n\n"; got != want || p.Err() != nil {
		t.Errorf("the program sees %q, %v; want %q", got, p.Err(), want)
	}
}
