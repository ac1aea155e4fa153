package supervisor

import (
	"context"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"sync"
)

// maxLogSize bounds each of a log's two files, because a guest decides how
// much it writes to its console.
const maxLogSize = 8 << 20

// logFile is a log of bounded size: when the file is full it becomes NAME.1
// and a new one is begun. Readers follow it without ever holding up the
// writer.
type logFile struct {
	path string

	mu     sync.Mutex
	file   *os.File
	size   int64
	grown  chan struct{} // closed and replaced at each change
	closed bool
}

// newLogFile begins a new log at path; a previous one becomes NAME.1. The
// caller closes it.
func newLogFile(path string) (*logFile, error) {
	l := &logFile{path: path, grown: make(chan struct{})}
	return l, l.begin()
}

func (l *logFile) begin() error {
	if err := os.Rename(l.path, l.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	l.file, l.size = f, 0
	return nil
}

// Write implements io.Writer. It reports success even when the disk is full: a
// guest must not stop because its log cannot be kept.
func (l *logFile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return 0, os.ErrClosed
	}
	if l.size+int64(len(p)) > maxLogSize {
		l.file.Close() // followers hold a descriptor of their own
		if err := l.begin(); err != nil {
			l.closed = true
			return 0, err
		}
	}
	n, _ := l.file.Write(p)
	l.size += int64(n)
	l.changed()
	return len(p), nil
}

// changed expects mu to be held.
func (l *logFile) changed() {
	close(l.grown)
	l.grown = make(chan struct{})
}

// Close ends the log and lets its followers finish.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	l.changed()
	return l.file.Close()
}

// Follow copies the log to w from its beginning, and goes on as it grows,
// until the log is closed, ctx ends or w fails.
func (l *logFile) Follow(ctx context.Context, w io.Writer) error {
	for {
		l.mu.Lock()
		current := l.file
		f, err := os.Open(l.path)
		l.mu.Unlock()
		if err != nil {
			return err
		}
		err = l.follow(ctx, w, f, current)
		f.Close()
		if err != errRotated {
			return err
		}
	}
}

var errRotated = errors.New("log rotated")

func (l *logFile) follow(ctx context.Context, w io.Writer, f, current *os.File) error {
	for {
		l.mu.Lock()
		grown, closed, rotated := l.grown, l.closed, l.file != current
		l.mu.Unlock()
		if _, err := io.Copy(w, f); err != nil {
			return err
		}
		switch {
		case rotated:
			return errRotated
		case closed:
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Of a console, as much is read and shown at its end: the guest decides how many
// lines it writes and how long they are.
const (
	mostRead  = 64 << 10
	mostShown = 8 << 10
)

// consoleEnd returns the end of a guest's console that says why the guest is gone,
// up to n lines, or nothing. A kernel that has panicked writes more after the
// reason than a screen holds: then the lines end there. They begin where a program
// in Go, as the guest's agent is one, began to say why it gave up.
func consoleEnd(path string, n int) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return "", err
	}
	data := make([]byte, min(end, mostRead))
	if _, err := f.ReadAt(data, end-int64(len(data))); err != nil && err != io.EOF {
		return "", err
	}
	return whyItEnded(string(data), n), nil
}

var (
	kernelPanic = regexp.MustCompile(`(?m)^.*Kernel panic - not syncing.*$`)
	goGivesUp   = regexp.MustCompile(`(?m)^(panic|fatal error|runtime): `)
)

func whyItEnded(text string, n int) string {
	if at := kernelPanic.FindStringIndex(text); at != nil {
		reason := text[at[0]:at[1]]
		text = text[:at[1]]
		if at := goGivesUp.FindStringIndex(text); at != nil {
			lines := strings.SplitAfterN(text[at[0]:], "\n", n)
			if len(lines) == n {
				lines[n-1] = reason
			}
			text = strings.Join(lines, "")
		}
	}
	lines := strings.Split(strings.TrimRight(text, "\r\n"), "\n")
	text = strings.Join(lines[max(0, len(lines)-n):], "\n")
	return text[max(0, len(text)-mostShown):]
}
