package confine

import (
	"os/exec"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/process"
)

func BenchmarkUnconfined(b *testing.B) {
	for b.Loop() {
		if err := exec.Command("/bin/true").Run(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkConfined(b *testing.B) {
	s := trueSpec(b)
	for b.Loop() {
		p, _, err := Start(b.Context(), Program{Path: "/bin/true"}, s, process.Options{})
		if err != nil {
			b.Fatal(err)
		}
		<-p.Done()
	}
}

// BenchmarkConfinedByAReadyLauncher leaves out what the launcher does before it is told what to do.
func BenchmarkConfinedByAReadyLauncher(b *testing.B) {
	s := trueSpec(b)
	for range b.N {
		b.StopTimer()
		l := Ready(b.Context(), Program{Path: "/bin/true"}, s, process.Options{})
		<-l.begun
		time.Sleep(50 * time.Millisecond)
		b.StartTimer()
		p, _, err := l.Start(nil, nil)
		if err != nil {
			b.Fatal(err)
		}
		<-p.Done()
	}
}

func trueSpec(b *testing.B) Spec {
	b.Helper()
	parts, err := FindParts(b.Context(), "/bin/true")
	if err != nil {
		b.Fatal(err)
	}
	user, err := ChooseUser(77)
	if err != nil {
		b.Fatal(err)
	}
	return Spec{Room: &Room{Paths: parts.Paths(), Executes: parts.Executes(), User: user}}
}
