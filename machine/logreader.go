package machine

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// readLog calls emit for each line of a log, the oldest first. With follow it goes on until
// the sandbox ends or ctx does.
func (s *Sandbox) readLog(ctx context.Context, name string, follow bool, emit func(line []byte) error) error {
	r := logReader{path: s.Files().Log(name), emit: emit}
	if !follow || !s.held() {
		return r.read()
	}
	files, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watching %s: %w", name, err)
	}
	defer files.Close()
	if err := files.Add(filepath.Dir(r.path)); err != nil {
		return fmt.Errorf("watching %s: %w", name, err)
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

// logReader reads a log that is begun anew when it is full, the former file being NAME.1.
type logReader struct {
	path string
	emit func(line []byte) error

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
	r.line = r.line[:0]
	return r.emit(line)
}

func sameFile(a, b *os.File) bool {
	x, err := a.Stat()
	if err != nil {
		return false
	}
	y, err := b.Stat()
	return err == nil && os.SameFile(x, y)
}
