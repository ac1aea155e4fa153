package confine

import (
	"os/exec"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/process"
)

func BenchmarkPlain(b *testing.B) {
	for b.Loop() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConfined(b *testing.B) {
	parts, err := FindParts(b.Context(), "/bin/true")
	if err != nil {
		b.Fatal(err)
	}
	user, err := ChooseUser(77)
	if err != nil {
		b.Fatal(err)
	}
	r := &Room{Paths: parts.Paths(), Executes: parts.Executes(), User: user}
	for b.Loop() {
		p, _, err := Start(b.Context(), Program{Path: "/bin/true"}, Spec{Room: r}, process.Options{})
		if err != nil {
			b.Fatal(err)
		}
		<-p.Done()
	}
}
