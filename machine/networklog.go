package machine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/gateway"
)

// NetworkLog calls emit for each entry of the log of the guest's network, the oldest
// first. With follow it goes on until the sandbox ends or ctx does. A line that is no
// entry, such as the last words of the network's process, is one with a message only.
func (s *Sandbox) NetworkLog(ctx context.Context, follow bool, emit func(gateway.Entry) error) error {
	r := logReader{path: s.Files().Log(layout.NetworkLog), emit: emit}
	if !follow || !s.held() {
		return r.read()
	}
	files, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching the network's log: %w", err)
	}
	defer files.Close()
	if err := files.Add(filepath.Dir(r.path)); err != nil {
		return fmt.Errorf("watching the network's log: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.Wait(ctx) // if it fails, there is nothing to wait for either
	}()
	defer r.close()
	for {
		if err := r.more(); err != nil {
			return err
		}
		select {
		case <-files.Events:
		case err := <-files.Errors:
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return err
			}
		case <-ended:
			return r.more()
		}
	}
}

// NetworkTail is what is added to the log of a guest's network from some moment on.
type NetworkTail struct{ reader logReader }

// TailNetworkLog begins a tail now, however long the log is already. The caller closes it.
func (s *Sandbox) TailNetworkLog() (*NetworkTail, error) {
	t := &NetworkTail{logReader{path: s.Files().Log(layout.NetworkLog)}}
	f, err := os.Open(t.reader.path)
	if errors.Is(err, os.ErrNotExist) {
		return t, nil // and all of it is new
	}
	if err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	t.reader.use(f)
	return t, nil
}

// Read calls emit for each entry that was added since the last time. Of a log that was begun anew more than twice
// meanwhile, the first ones are gone.
func (t *NetworkTail) Read(emit func(gateway.Entry) error) error {
	t.reader.emit = emit
	return t.reader.more()
}

// Close ends the tail.
func (t *NetworkTail) Close() { t.reader.close() }

// logReader reads a log that is begun anew when it is full, the former file being NAME.1.
type logReader struct {
	path string
	emit func(gateway.Entry) error

	file *os.File // that was read last; nil before the first
	in   *bufio.Reader
	line []byte // of which the end is missing
}

func (r *logReader) close() {
	if r.file != nil {
		r.file.Close()
	}
}

// read reads all that there is, to a last line without end.
func (r *logReader) read() error {
	defer r.close()
	if err := r.more(); err != nil || len(r.line) == 0 {
		return err
	}
	return r.tell()
}

// more reads what has been written since the last time.
func (r *logReader) more() error {
	if r.file == nil {
		current, err := os.Open(r.path)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.before(current); err != nil {
			return errors.Join(err, current.Close())
		}
		r.use(current)
	}
	for {
		if err := r.rest(); err != nil {
			return err
		}
		next, err := os.Open(r.path)
		if errors.Is(err, os.ErrNotExist) {
			return nil // it will be there in a moment
		}
		if err != nil {
			return err
		}
		if sameFile(next, r.file) {
			return next.Close()
		}
		if err := r.rest(); err != nil { // what was written before the other was begun
			return errors.Join(err, next.Close())
		}
		last := r.file
		err = r.before(next, last)
		last.Close()
		if err != nil {
			return errors.Join(err, next.Close())
		}
		r.use(next)
	}
}

// before reads the file before the current one, unless that was read or is the current one.
func (r *logReader) before(known ...*os.File) error {
	older, err := os.Open(r.path + ".1")
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer older.Close()
	for _, file := range known {
		if sameFile(older, file) { // the current one has become that one just now
			return nil
		}
	}
	r.use(older)
	defer func() { r.file = nil }()
	return r.rest()
}

func (r *logReader) use(f *os.File) { r.file, r.in = f, bufio.NewReader(f) }

// rest reads the file to its present end.
func (r *logReader) rest() error {
	for {
		part, err := r.in.ReadBytes('\n')
		r.line = append(r.line, part...)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.tell(); err != nil {
			return err
		}
	}
}

func (r *logReader) tell() error {
	line := bytes.TrimRight(r.line, "\r\n")
	var e gateway.Entry
	if err := json.Unmarshal(line, &e); err != nil {
		e = gateway.Entry{Message: string(line)}
	}
	r.line = r.line[:0]
	return r.emit(e)
}

func sameFile(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}
