package stack

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// relay carries bytes between a connection of the guest's and one of the host's until both directions ended, and closes
// the host's; the caller ends the guest's. The end of one direction is passed on as such, and an error as a reset. It returns
// how many bytes the guest sent and received.
//
// Before the guest's bytes are passed on, check may read and send some of them, or end the connection by an error.
//
// Bytes go from one socket's buffer into the other's, so a connection that waits holds none besides. Only what is spoken to
// through something, such as the TLS of a proxy, has no descriptor, and needs buffers.
func relay(ctx context.Context, ep tcpip.Endpoint, queue *waiter.Queue, host HalfConn, check func() (int64, error)) (sent, received int64) {
	up := func() (int64, error) { return copyBytes(host, gonet.NewTCPConn(queue, ep)) }
	down := func() (int64, error) { return copyBytes(newPieceConn(queue, ep), host) }
	if direct, ok := host.(hostConn); ok {
		up = func() (int64, error) { return fromGuest(ep, queue, direct) }
		down = func() (int64, error) { return toGuest(ep, queue, direct) }
	}
	fail := sync.OnceFunc(func() {
		abort(host)
		ep.Abort()
	})
	stop := context.AfterFunc(ctx, fail)
	defer stop()
	var guest sync.WaitGroup
	guest.Go(func() {
		checked, err := check()
		if err == nil {
			sent, err = up()
		}
		sent += checked
		if err == nil {
			err = host.CloseWrite()
		}
		if err != nil {
			fail()
		}
	})
	received, err := down()
	if err != nil {
		fail()
	} else if ep.Shutdown(tcpip.ShutdownWrite) != nil {
		fail()
	}
	guest.Wait()
	host.Close()
	return sent, received
}

// unchecked lets everything through.
func unchecked() (int64, error) { return 0, nil }

// drainTimeout is how long the guest has for acknowledging the last of a connection, and for ending it as well.
const drainTimeout = time.Minute

// end closes a connection, both directions of which were ended here, when the guest has all that it was sent and has ended its
// own as well: until then, it takes memory, and so a place. One that the guest does not end is aborted.
func end(ctx context.Context, ep tcpip.Endpoint, queue *waiter.Queue) {
	defer ep.Close()
	entry, changed := waiter.NewChannelEntry(waiter.EventHUp | waiter.EventErr | waiter.WritableEvents | waiter.ReadableEvents)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	deadline := time.NewTimer(drainTimeout)
	defer deadline.Stop()
	// Not each acknowledgment is an event. Of the usual end, in which the guest was the first to say that it is one, it is.
	for pause := 16 * time.Millisecond; ; pause = min(2*pause, 256*time.Millisecond) {
		switch tcp.EndpointState(ep.State()) {
		case tcp.StateFinWait1, tcp.StateFinWait2, tcp.StateClosing, tcp.StateLastAck:
		default:
			return
		}
		select {
		case <-changed:
		case <-time.After(pause):
		case <-deadline.C:
			ep.Abort()
			return
		case <-ctx.Done():
			return
		}
	}
}

// fromGuest passes on what the guest sends, until it sends no more.
func fromGuest(ep tcpip.Endpoint, queue *waiter.Queue, host hostConn) (total int64, err error) {
	conn, err := host.SyscallConn()
	if err != nil {
		return 0, err
	}
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	for {
		end := false
		werr := conn.Write(func(fd uintptr) bool {
			for {
				to := descriptor{fd: int(fd)}
				result, terr := ep.Read(&to, tcpip.ReadOptions{})
				total += int64(result.Count)
				switch {
				case to.err == unix.EAGAIN:
					return false
				case to.err != nil:
					err = to.err
					return true
				case terr == nil:
				case isWouldBlock(terr):
					return true
				case isEnd(terr):
					end = true
					return true
				default:
					err = errors.New(terr.String())
					return true
				}
			}
		})
		if err == nil {
			err = werr
		}
		if err != nil || end {
			return total, err
		}
		<-readable
	}
}

// toGuest passes on what the host receives, until there is no more.
func toGuest(ep tcpip.Endpoint, queue *waiter.Queue, host hostConn) (total int64, err error) {
	conn, err := host.SyscallConn()
	if err != nil {
		return 0, err
	}
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventHUp | waiter.EventErr)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	pieces := piecesOf(ep)
	for {
		end := false
		rerr := conn.Read(func(fd uintptr) bool {
			for {
				from := descriptor{fd: int(fd)}
				if end, err = from.look(); err == unix.EAGAIN {
					err = nil
					return false
				}
				if end || err != nil {
					return true
				}
				pieces.next(from.ready)
				n, terr := ep.Write(&from, tcpip.WriteOptions{})
				total += n
				switch {
				case from.err != nil:
					err = from.err
					return true
				case terr == nil:
				case isWouldBlock(terr):
					return true
				default:
					err = errors.New(terr.String())
					return true
				}
			}
		})
		if err == nil {
			err = rerr
		}
		if err != nil || end {
			return total, err
		}
		<-writable
	}
}

func isWouldBlock(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrWouldBlock)
	return ok
}

func isEnd(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrClosedForReceive)
	return ok
}

// descriptor reads and writes a socket of the host's without waiting, so it may be used under the lock of an endpoint.
type descriptor struct {
	fd    int
	ready int   // bytes that can be read
	err   error // of the last read or write, as endpoints keep them to themselves
}

// look waits for nothing either: it finds out how much there is to read.
func (d *descriptor) look() (end bool, err error) {
	if d.ready, err = unix.IoctlGetInt(d.fd, unix.SIOCINQ); err != nil || d.ready > 0 {
		return false, err
	}
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(d.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		if err == unix.EINTR {
			continue
		}
		d.ready = n
		return n == 0 && err == nil, err
	}
}

// Len implements tcpip.Payloader.
func (d *descriptor) Len() int { return d.ready }

// Read implements io.Reader.
func (d *descriptor) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return 0, nil // gVisor asks before each read; the end would make it ask for ever
	}
	for {
		if n, err = unix.Read(d.fd, b); err != unix.EINTR {
			break
		}
	}
	if err == nil && n == 0 {
		err = io.ErrUnexpectedEOF // there was more
	}
	if err != nil {
		d.err = err
		return 0, err
	}
	return n, nil
}

// Write implements io.Writer.
func (d *descriptor) Write(b []byte) (n int, err error) {
	for {
		if n, err = unix.SendmsgN(d.fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != unix.EINTR {
			break
		}
	}
	if err == nil && n < len(b) {
		err = unix.EAGAIN
	}
	d.err = err
	return max(n, 0), err
}
