//go:build linux

package server

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// outputPause is how long an output of an ended process must have been
	// silent before it is asked who still holds its other end.
	outputPause = 500 * time.Millisecond

	// outputGrace is how long those who hold it, and are no daemons, may be
	// silent and idle: the last word of a pipeline or a process substitution
	// must not be lost, and a background job must not keep the session for
	// ever.
	outputGrace = 5 * time.Second
)

// output copies one output of a process to its channel.
type output struct {
	from     *os.File
	to       io.Writer
	terminal bool // whose loss the process has to hear of
}

// copyOutputs copies until every output has ended, or until nobody is left
// after exited who is likely to write more. Whatever the process itself had
// written is delivered in any case, however slowly the other side reads.
// leader is the process, whose session those who write on belong to.
func copyOutputs(outputs []output, exited <-chan struct{}, leader int) {
	var copies sync.WaitGroup
	for _, o := range outputs {
		copies.Go(func() { o.copy(exited, leader) })
	}
	<-exited
	for _, o := range outputs {
		// A file that takes no deadline has been closed by its copier.
		_ = o.from.SetReadDeadline(time.Now().Add(outputPause))
	}
	copies.Wait()
}

// copy copies until the output has ended or nobody is waited for any more. Who
// writes later, or when the host is gone, writes into the void: a program that
// somebody has put into the background must not die of its next line. Only who
// says that he does not want the output has it closed: see session.closeOutput.
func (o output) copy(exited <-chan struct{}, leader int) {
	watch := lateWriters{leader: leader}
	buffer := make([]byte, 32<<10)
	for {
		n, err := o.from.Read(buffer)
		if n > 0 {
			if _, err := o.to.Write(buffer[:n]); err != nil {
				break
			}
			watch.quiet = time.Time{}
		}
		switch {
		case err == nil:
			select {
			case <-exited:
			default:
				continue // deadlines are for what comes after
			}
		case !errors.Is(err, os.ErrDeadlineExceeded):
			o.from.Close()
			return
		// A slow reader, and not silence, may have used the time up; and while
		// writers are looked for, the last one may write and end.
		case o.pending() == 0 && !watch.expected(o.from) && o.pending() == 0:
			go o.discard()
			return
		}
		if o.from.SetReadDeadline(time.Now().Add(outputPause)) != nil {
			return // it was closed meanwhile
		}
	}
	go o.discard()
}

// pending is how many bytes can be read at once.
func (o output) pending() (bytes int) {
	_ = control(o.from, func(fd int) (err error) {
		bytes, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	})
	return bytes
}

// discard reads until the last writer has ended, and closes the output.
func (o output) discard() {
	defer o.from.Close()
	if o.terminal {
		return
	}
	for o.from.SetReadDeadline(time.Time{}) == nil {
		_, err := io.Copy(io.Discard, onlyReader{o.from})
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return
		}
	}
}

// onlyReader keeps io.Copy from shortcuts that would move the data by other
// ways than plain Read and Write.
type onlyReader struct{ io.Reader }
