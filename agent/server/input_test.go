//go:build linux

package server_test

import (
	"bytes"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// takerInput records what it is told. What follows the first Read waits until
// the first is told to be taken.
type takerInput struct {
	parts []string
	asked chan struct{}

	mu    sync.Mutex
	told  []int64
	reads int
}

func newTakerInput(parts ...string) *takerInput {
	return &takerInput{parts: parts, asked: make(chan struct{})}
}

func (i *takerInput) Read(p []byte) (int, error) {
	i.reads++
	if i.reads > len(i.parts) {
		return 0, io.EOF
	}
	if i.reads == 2 {
		<-i.asked
	}
	return copy(p, i.parts[i.reads-1]), nil
}

func (i *takerInput) Taken(n int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.told = append(i.told, n); len(i.told) == 1 {
		close(i.asked)
	}
}

func TestTheHostIsToldHowMuchInputTheCommandHasRead(t *testing.T) {
	f := newFixture(t)
	client := through(t, forward(t, f)) // as every command reaches its guest
	large := strings.Repeat("x", wire.FirstInput)
	for name, tt := range map[string]struct {
		script string
		parts  []string
		out    string
		told   []int64
	}{
		"none":            {"true", []string{"one\ntwo\n", "three\n"}, "", []int64{0}},
		"no input":        {"cat", nil, "", []int64{0}},
		"a line":          {"read x; echo $x", []string{"one\ntwo\n", "three\n"}, "one\n", []int64{4}},
		"the first":       {"read x; echo $x", []string{"one\n"}, "one\n", []int64{4, 4}},
		"all":             {"cat", []string{"one\n", "two\n"}, "one\ntwo\n", []int64{4, 8}},
		"a whole buffer":  {"head -c 4096 | wc -c", []string{large, "rest"}, "4096\n", []int64{4096, 4096}},
		"only at the end": {"exec 3<&0 </dev/null; sleep 0.2; cat <&3", []string{"one\n", "two\n"}, "one\ntwo\n", []int64{4, 8}},
	} {
		t.Run(name, func(t *testing.T) {
			in := newTakerInput(tt.parts...)
			cmd := client.Command(t.Context(), "sh", "-c", tt.script)
			var out bytes.Buffer
			cmd.Stdin, cmd.Stdout = in, &out
			if err := cmd.Run(); err != nil {
				t.Fatal(err)
			}
			if out.String() != tt.out {
				t.Errorf("it wrote %q", out.String())
			}
			// Whether the end of what was read first is told on its own, before
			// the process ends, is the scheduler's to say; and what comes after
			// it may not have reached the process.
			last := in.told[len(in.told)-1]
			if want := tt.told[len(tt.told)-1]; last != want || (len(tt.told) > 1 && in.told[0] != tt.told[0]) {
				t.Errorf("told %d, want %d", in.told, tt.told)
			}
		})
	}

	t.Run("endless input", func(t *testing.T) {
		zero, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer zero.Close()
		in := &endlessTaker{Reader: zero}
		cmd := client.Command(t.Context(), "sh", "-c", "head -c 3000000 | wc -c")
		cmd.Stdin = in
		if out, err := cmd.Output(); err != nil || string(out) != "3000000\n" {
			t.Errorf("%q, %v", out, err)
		}
		if in.last < 3000000 || in.last > 3000000+1<<20 {
			t.Errorf("told %d", in.last)
		}
	})

	t.Run("a terminal", func(t *testing.T) {
		in := newTakerInput("one\n", "two\n")
		cmd := client.Command(t.Context(), "sh", "-c", "stty -echo; read x; read y; echo $x $y")
		var out bytes.Buffer
		cmd.Stdin, cmd.Stdout, cmd.Terminal = in, &out, &agent.Terminal{Term: "dumb"}
		if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "one two") || in.told[0] != math.MaxInt64 {
			t.Errorf("%q, told %d, %v", out.String(), in.told, err)
		}
	})
}

type endlessTaker struct {
	io.Reader
	last int64
}

func (e *endlessTaker) Taken(n int64) { e.last = n }
