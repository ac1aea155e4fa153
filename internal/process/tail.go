package process

import (
	"bytes"
	"io"
	"sync"
)

// maxTailLine bounds a line that never ends, such as a progress bar drawn with carriage returns.
const maxTailLine = 4096

// tail keeps the last complete lines written to it, and the unfinished one.
type tail struct {
	mu      sync.Mutex
	limit   int
	kept    []string
	partial []byte
}

func newTail(limit int) *tail {
	if limit <= 0 {
		limit = defaultTailLines
	}
	return &tail{limit: limit}
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := len(b)
	for {
		line, rest, found := bytes.Cut(b, []byte{'\n'})
		if room := maxTailLine - len(t.partial); len(line) > room {
			line = line[:room]
		}
		t.partial = append(t.partial, line...)
		if !found {
			return n, nil
		}
		t.push()
		b = rest
	}
}

// push moves the unfinished line to the kept ones; empty lines would only use up the limit.
func (t *tail) push() {
	if line := bytes.TrimRight(t.partial, "\r \t"); len(line) > 0 {
		t.kept = append(t.kept, string(line))
		if len(t.kept) > t.limit {
			t.kept = t.kept[len(t.kept)-t.limit:]
		}
	}
	t.partial = t.partial[:0]
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.push()
	return append([]string(nil), t.kept...)
}

// syncWriter serialises the writes of standard output and standard error, which os/exec copies on two
// goroutines. It never fails: a full disk under a log must not end the program that is being logged.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.w != nil {
		s.w.Write(b) //nolint:errcheck // see the type's comment
	}
	return len(b), nil
}

// fanOut adds writers to the one that the caller may have set.
func fanOut(own io.Writer, more ...io.Writer) io.Writer {
	if own != nil {
		more = append(more, own)
	}
	return io.MultiWriter(more...)
}
