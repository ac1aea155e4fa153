//go:build linux

package guest

import (
	"errors"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// outputGrace is how long the output of an ended process is still waited for
// while something that it left behind holds the other end open: a background
// job must not keep the session for ever, and a last word must not be lost.
const outputGrace = 500 * time.Millisecond

// output copies one output of a process to its channel.
type output struct {
	from *os.File
	to   io.Writer
}

// copyOutputs copies until every output has ended, or until outputGrace after
// exited. Whatever the process had written before it exited is delivered in
// any case, however slowly the other side reads.
func copyOutputs(outputs []output, exited <-chan struct{}) {
	var copies sync.WaitGroup
	for _, o := range outputs {
		copies.Go(o.copy)
	}
	<-exited
	deadline := time.Now().Add(outputGrace)
	for _, o := range outputs {
		// A file that takes no deadline has been closed by its copier.
		_ = o.from.SetReadDeadline(deadline)
	}
	copies.Wait()
}

func (o output) copy() {
	// When nobody wants the output any more, the process has to know.
	defer o.from.Close()
	_, err := io.Copy(onlyWriter{o.to}, onlyReader{o.from})
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	// What the process itself wrote is older than what others have added, so
	// what is in the pipe at this moment contains all that is still owed.
	owed := 0
	_ = control(o.from, func(fd int) error {
		owed, err = unix.IoctlGetInt(fd, unix.TIOCINQ)
		return err
	})
	if owed > 0 && o.from.SetReadDeadline(time.Time{}) == nil {
		_, _ = io.CopyN(onlyWriter{o.to}, o.from, int64(owed))
	}
}

// onlyWriter and onlyReader keep io.Copy from shortcuts that would move the
// data by other ways than plain Read and Write.
type (
	onlyWriter struct{ io.Writer }
	onlyReader struct{ io.Reader }
)
