package stack

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
)

// HalfConn is a connection of which one direction can end before the other.
type HalfConn interface {
	net.Conn
	CloseWrite() error
}

// toLoopback connects somebody's connection to a port of the guest's own loopback, to which no network leads, and
// serves it. Its error says that there is no connection.
func (n *Network) toLoopback(ctx context.Context, host hostConn, port uint16) error {
	if n.config.Loopback == nil {
		return syscall.ECONNREFUSED
	}
	dialing, cancel := context.WithTimeout(ctx, guestTimeout)
	defer cancel()
	guest, err := n.config.Loopback(dialing, port)
	if err != nil {
		return err
	}
	fail := sync.OnceFunc(func() {
		abort(host)
		guest.Close()
	})
	stop := context.AfterFunc(ctx, fail)
	defer stop()
	var ways sync.WaitGroup
	ways.Go(func() {
		from := &failing{Reader: host}
		_, _ = copyBytes(guest, from) // a guest that reads no more may still have something to say
		_ = guest.CloseWrite()
		if from.err != nil {
			fail()
		}
	})
	ways.Go(func() {
		_, err := copyBytes(host, guest)
		if err = errors.Join(err, host.CloseWrite()); err != nil {
			fail()
		}
	})
	ways.Wait()
	host.Close()
	guest.Close()
	return nil
}

// failing remembers why it ended, unless that was the end.
type failing struct {
	io.Reader
	err error
}

func (f *failing) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// copyBytes is io.Copy by reads and writes alone: the process in which it runs may have no other system calls.
func copyBytes(to io.Writer, from io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{to}, struct{ io.Reader }{from})
}
