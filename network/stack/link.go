package stack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	// linkBuffer is what the kernel may hold of what was sent, in bytes. It counts a frame of 64 KiB as 80, and takes
	// 11 datagrams at most (net.unix.max_dgram_qlen).
	linkBuffer = 1 << 20

	// maxQueue bounds what waits for a guest that does not take it, in bytes. It is a little more than what sixteen
	// connections that send at once have in flight (see buffers), so that nothing of theirs is lost; more would be of
	// no use, and is what a small answer has to wait for behind a download. The bytes are shared with the buffers of
	// the connections.
	maxQueue = 3 << 20
	// maxVector is how many pieces the kernel takes at once (UIO_MAXIOV). TCP puts small ones together to one frame.
	maxVector = 1024
	// frameOverhead is about what a queued frame takes besides its bytes.
	frameOverhead = 512
)

// Pair returns both ends of a new link: the first for Config.Link, the second for the guest's card.
//
// Who keeps them, so that others can take them over, must not be woken by what passes: as they block at first, Go's
// poller does not watch them.
func Pair() (ours, guests *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("cannot make a pair of sockets for the network: %w", err)
	}
	for _, fd := range fds {
		growBuffer(fd)
	}
	return os.NewFile(uintptr(fds[0]), "network"), os.NewFile(uintptr(fds[1]), "network"), nil
}

// growBuffer makes room for some frames; the kernel's default has room for two or three.
func growBuffer(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, linkBuffer) != nil {
		// Without privileges there is an upper limit, to which the kernel cuts the wish.
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, linkBuffer)
	}
}

// link is a stack's end of an Ethernet with two ends.
type link struct {
	file     *os.File
	conn     syscall.RawConn
	readable *readiness
	writable *readiness // watched while sending
	mtu      int

	mac   tcpip.LinkAddress
	peer  atomic.Pointer[tcpip.LinkAddress] // the card at the other end, once it is known
	admit func(frame []byte) bool           // tells whether a frame may be read by the stack

	// answer does what is to be done with a frame in the stack's place, or tells that the stack has to.
	answer func(frame []byte) bool

	attached atomic.Pointer[netstack.NetworkDispatcher]

	mu      sync.Mutex
	acks    acks
	queue   []*netstack.PacketBuffer
	queued  int  // bytes
	sending bool // the sender waits for the guest; frames queue
	gone    bool // the file is closed
	ended   bool // by shut
	wake    chan struct{}
	vector  [][]byte

	refused, dropped atomic.Uint64
}

func newLink(f *os.File, mtu int, mac tcpip.LinkAddress, admit func([]byte) bool) (*link, error) {
	if f == nil {
		return nil, errors.New("a network needs a link")
	}
	l := &link{file: f, mtu: mtu, mac: mac, admit: admit, wake: make(chan struct{}, 1)}
	if err := l.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("cannot use the network's link: %w", err), l.close())
	}
	l.acks.release = time.AfterFunc(ackDelay, l.releaseAck)
	go l.send()
	return l, nil
}

// open gets the socket ready. It blocks, so that Go's poller does not watch it: that would be for both directions at once,
// and wake this process for each frame that the guest takes, too, which is as often as for those that it sends.
func (l *link) open() (err error) {
	if l.conn, err = l.file.SyscallConn(); err != nil {
		return err
	}
	cerr := l.conn.Control(func(fd uintptr) {
		var kind int
		if kind, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
			return
		}
		if kind != unix.SOCK_DGRAM {
			err = errors.New("it is no socket of datagrams")
			return
		}
		growBuffer(int(fd))
		if l.readable, err = newReadiness(int(fd), unix.EPOLLIN); err == nil {
			l.writable, err = newReadiness(int(fd), 0) // only what waits for it is woken by it
		}
	})
	return errors.Join(err, cerr)
}

// close ends what waits, and what uses the socket. It waits for that, so the lock must not be held.
func (l *link) close() error {
	return errors.Join(l.readable.close(), l.writable.close(), l.file.Close())
}

// serve hands the guest's frames to the stack until the link ends.
func (l *link) serve() error {
	frame := make([]byte, header.EthernetMinimumSize+l.mtu)
	for {
		var n int
		var err error
		rerr := l.readable.wait(func() bool {
			cerr := l.conn.Control(func(fd uintptr) {
				// The length of a datagram that does not fit is that which it has.
				n, _, err = unix.Recvfrom(int(fd), frame, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			})
			if cerr != nil {
				err = cerr
			}
			return err != unix.EAGAIN
		})
		switch {
		case rerr != nil:
			return l.end(rerr)
		case err == unix.EINTR:
		case err != nil:
			return l.end(fmt.Errorf("cannot receive from the guest: %w", err))
		case n > len(frame):
			l.refused.Add(1)
		default:
			l.deliver(frame[:n])
		}
	}
}

// end returns why the link ended. The file says only that it was closed.
func (l *link) end(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.ended:
		return net.ErrClosed
	case l.gone:
		return errors.New("nobody has the other end of the network's link any more")
	}
	return err
}

func (l *link) deliver(frame []byte) {
	attached := l.attached.Load()
	if attached == nil {
		return
	}
	if len(frame) < header.EthernetMinimumSize || !l.admit(frame) {
		l.refused.Add(1)
		return
	}
	if l.answer != nil && l.answer(frame) {
		return
	}
	if s, ok := smallRequest(frame); ok {
		l.mu.Lock()
		l.acks.asked = s
		l.mu.Unlock()
	}
	pkt := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: buffer.MakeWithData(frame)})
	defer pkt.DecRef()
	if h, ok := pkt.LinkHeader().Consume(header.EthernetMinimumSize); ok {
		(*attached).DeliverNetworkPacket(header.Ethernet(h).Type(), pkt)
	}
}

// WritePackets implements netstack.LinkWriter. It never waits: what the guest does not take is queued, and dropped
// when there is too much of it, as by any router.
func (l *link) WritePackets(pkts netstack.PacketBufferList) (int, tcpip.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, pkt := range pkts.AsSlice() {
		if !l.gone && l.acks.wait(pkt) {
			continue
		}
		if err := l.put(pkt); err != nil {
			l.dropped.Add(uint64(pkts.Len() - i - 1))
			return i, err
		}
	}
	return pkts.Len(), nil
}

// put sends or queues one frame. The lock is held.
func (l *link) put(pkt *netstack.PacketBuffer) tcpip.Error {
	if l.gone {
		return &tcpip.ErrClosedForSend{}
	}
	if !l.sending {
		if err := l.write(pkt); err == nil {
			return nil
		} else if err != unix.EAGAIN {
			return l.failed(err)
		}
	}
	size := pkt.Size() + frameOverhead
	if l.queued+size > maxQueue {
		l.dropped.Add(1)
		return &tcpip.ErrNoBufferSpace{}
	}
	l.queue = append(l.queue, pkt.IncRef())
	l.queued += size
	if !l.sending {
		l.sending = true
		l.wake <- struct{}{}
	}
	return nil
}

// releaseAck sends an acknowledgment that has waited long enough.
func (l *link) releaseAck() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acks.running = false
	if pkt := l.acks.take(); pkt != nil {
		_ = l.put(pkt) // as of any frame, its loss is made up for by the guest
		pkt.DecRef()
	}
}

// failed notes an error that is not the fault of one frame.
func (l *link) failed(err error) tcpip.Error {
	switch err {
	case unix.EMSGSIZE, unix.ENOBUFS, unix.ENOMEM:
		l.dropped.Add(1)
		return &tcpip.ErrNoBufferSpace{}
	}
	if !l.gone {
		l.gone = true
		go l.close()
	}
	return &tcpip.ErrClosedForSend{}
}

// write sends one frame, if that is possible at once. The lock is held.
func (l *link) write(pkt *netstack.PacketBuffer) (err error) {
	vector := l.vector[:0]
	views, offset := pkt.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		b := v.AsSlice()
		if offset >= len(b) {
			offset -= len(b)
			continue
		}
		vector = append(vector, b[offset:])
		offset = 0
	}
	sent := vector
	if len(vector) > maxVector {
		sent = [][]byte{slices.Concat(vector...)}
	}
	cerr := l.conn.Control(func(fd uintptr) {
		for {
			if _, err = unix.SendmsgBuffers(int(fd), sent, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL); err != unix.EINTR {
				return
			}
		}
	})
	clear(vector)
	l.vector = vector
	if err == nil {
		err = cerr
	}
	return err
}

// send sends what is queued, as the guest takes it.
func (l *link) send() {
	for range l.wake {
		if l.watchWritable(unix.EPOLLOUT) != nil {
			break
		}
		// It waits for the socket in here, without the lock, and tries with it.
		err := l.writable.wait(func() bool {
			l.mu.Lock()
			defer l.mu.Unlock()
			for len(l.queue) > 0 {
				pkt := l.queue[0]
				err := l.write(pkt)
				if err == unix.EAGAIN {
					return false
				}
				l.queue[0] = nil
				l.queue = l.queue[1:]
				l.queued -= pkt.Size() + frameOverhead
				pkt.DecRef()
				if err != nil {
					l.failed(err)
				}
			}
			l.queue = nil
			l.sending = false
			return true
		})
		if err != nil || l.watchWritable(0) != nil {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, pkt := range l.queue {
		pkt.DecRef()
	}
	l.queue, l.queued = nil, 0
}

func (l *link) watchWritable(events uint32) (err error) {
	cerr := l.conn.Control(func(fd uintptr) { err = l.writable.watch(unix.EPOLL_CTL_MOD, int(fd), events) })
	return errors.Join(err, cerr)
}

// shut ends the link. It is called once.
func (l *link) shut() error {
	l.mu.Lock()
	gone := l.gone
	l.gone, l.ended = true, true
	close(l.wake)
	l.mu.Unlock()
	if gone {
		return nil
	}
	return l.close()
}

// readiness tells when something can be done with a socket.
type readiness struct {
	epoll *os.File // which Go's poller watches
	conn  syscall.RawConn
}

// newReadiness watches a descriptor for events of epoll_ctl(2). The caller closes it.
func newReadiness(fd int, events uint32) (*readiness, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err == nil {
		err = unix.SetNonblock(epoll, true) // or Go's poller would not
	}
	if err != nil {
		return nil, err
	}
	r := &readiness{epoll: os.NewFile(uintptr(epoll), "epoll")}
	if r.conn, err = r.epoll.SyscallConn(); err == nil {
		err = r.watch(unix.EPOLL_CTL_ADD, fd, events)
	}
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *readiness) watch(operation, fd int, events uint32) (err error) {
	cerr := r.conn.Control(func(epoll uintptr) {
		err = unix.EpollCtl(int(epoll), operation, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
	})
	return errors.Join(err, cerr)
}

// wait tries something each time that it may be possible, until it is done, or the end.
func (r *readiness) wait(try func() (done bool)) error {
	return r.conn.Read(func(uintptr) bool { return try() })
}

// close may be called on nil.
func (r *readiness) close() error {
	if r == nil {
		return nil
	}
	return r.epoll.Close()
}

// The rest of netstack.LinkEndpoint.

func (l *link) MTU() uint32                             { return uint32(l.mtu) }
func (l *link) SetMTU(uint32)                           {}
func (l *link) MaxHeaderLength() uint16                 { return header.EthernetMinimumSize }
func (l *link) LinkAddress() tcpip.LinkAddress          { return l.mac }
func (l *link) SetLinkAddress(tcpip.LinkAddress)        {}
func (l *link) Wait()                                   {}
func (l *link) Close()                                  {}
func (l *link) SetOnCloseAction(func())                 {}
func (l *link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (l *link) IsAttached() bool                        { return l.attached.Load() != nil }
func (l *link) ParseHeader(p *netstack.PacketBuffer) bool {
	_, ok := p.LinkHeader().Consume(header.EthernetMinimumSize)
	return ok
}

// Capabilities implements netstack.NetworkLinkEndpoint. A Unix socket damages nothing, so nothing is summed twice,
// and there is nobody else at its other end, so nobody's address has to be asked for before something is sent.
func (l *link) Capabilities() netstack.LinkEndpointCapabilities {
	return netstack.CapabilityRXChecksumOffload
}

// Attach implements netstack.NetworkLinkEndpoint.
func (l *link) Attach(d netstack.NetworkDispatcher) {
	if d == nil {
		l.attached.Store(nil)
		return
	}
	l.attached.Store(&d)
}

// AddHeader implements netstack.NetworkLinkEndpoint.
func (l *link) AddHeader(p *netstack.PacketBuffer) {
	to := p.EgressRoute.RemoteLinkAddress
	if to == "" {
		to = broadcastMAC
		if peer := l.peer.Load(); peer != nil {
			to = *peer
		}
	}
	header.Ethernet(p.LinkHeader().Push(header.EthernetMinimumSize)).Encode(&header.EthernetFields{
		SrcAddr: l.mac,
		DstAddr: to,
		Type:    p.NetworkProtocolNumber,
	})
}
