//go:build linux

package server

import (
	"os"
	"testing"
	"time"
)

// gatedWriter holds every write up until the gate opens.
type gatedWriter struct {
	gate <-chan struct{}
	n    int
}

func (g *gatedWriter) Write(p []byte) (int, error) {
	<-g.gate
	g.n += len(p)
	return len(p), nil
}

func TestOutputOfAnEndedProcessIsNotLostWhenTheReaderIsSlow(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() // as a background job would hold it
	const size = 60_000
	if _, err := w.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	close(exited)
	gate := make(chan struct{})
	time.AfterFunc(2*outputPause, func() { close(gate) })
	out := &gatedWriter{gate: gate}
	copyOutputs([]output{{r, out, false}}, exited, 0)
	if out.n != size {
		t.Errorf("%d bytes arrived of %d", out.n, size)
	}
}
