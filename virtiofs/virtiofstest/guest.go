package virtiofstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Guest is one whose kernel has mounted the share. It does one thing at a time.
type Guest struct {
	conn   *net.UnixConn
	memory []byte
	// kick and call are the eventfds by which the request queue's two sides wake each other.
	kick, call int
	available  uint16 // requests made
	used       uint16 // requests answered
	unique     uint64
}

// The guest's memory: rings and tables of the queues, a request, and a reply.
const (
	memorySize   = 8 << 20
	memoryAt     = 0x10000000 // in the address space of the front end
	queueSize    = 256
	queueStride  = 0x8000
	descriptors  = 0x1000
	availableAt  = 0x3000
	usedAt       = 0x4000
	requestAt    = 0x20000
	replyAt      = 0x200000
	maxReply     = 1 << 20
	requestQueue = 1 // of high priority is 0
)

// The requests of vhost-user that are made here (QEMU's docs/interop/vhost-user.rst).
const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	setVringKick        = 12
	setVringCall        = 13
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	setVringEnable      = 18
	addMemoryRegion     = 37
)

const (
	featureVersion1  = 1 << 32
	featureProtocol  = 1 << 30
	protocolMultiple = 1 << 0
	protocolSlots    = 1 << 15
)

var little = binary.LittleEndian

// Connect mounts what the socket's virtiofsd serves.
func Connect(socket string) (*Guest, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	g := &Guest{conn: conn, kick: -1, call: -1}
	if err := g.start(); err != nil {
		g.Close()
		return nil, fmt.Errorf("connecting to virtiofsd: %w", err)
	}
	return g, nil
}

// Close ends the guest, and with it virtiofsd.
func (g *Guest) Close() {
	g.conn.Close()
	for _, fd := range []int{g.kick, g.call} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
	if g.memory != nil {
		_ = unix.Munmap(g.memory)
	}
}

func (g *Guest) start() error {
	features, err := g.ask(getFeatures)
	if err != nil {
		return err
	}
	protocol, err := g.ask(getProtocolFeatures)
	if err != nil {
		return err
	}
	memory, err := unix.MemfdCreate("guest", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(memory)
	if err := unix.Ftruncate(memory, memorySize); err != nil {
		return err
	}
	if g.memory, err = unix.Mmap(memory, 0, memorySize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	if err := errors.Join(
		g.tell(setProtocolFeatures, pack(protocol&(protocolMultiple|protocolSlots))),
		g.tell(setOwner, nil),
		g.tell(setFeatures, pack(features&(featureVersion1|featureProtocol))),
		g.tell(addMemoryRegion, pack(uint64(0), uint64(0), uint64(memorySize), uint64(memoryAt), uint64(0)), memory),
	); err != nil {
		return err
	}
	for queue := range uint32(2) {
		if err := g.startQueue(queue); err != nil {
			return err
		}
	}
	// An answer says that all was understood. A queue that is not enabled yet would miss its first request.
	if _, err := g.ask(getFeatures); err != nil {
		return err
	}
	_, err = g.Do(opInit, 0, pack(uint32(7), uint32(39), uint32(1<<17), uint32(0), [48]byte{}))
	return err
}

func (g *Guest) startQueue(queue uint32) error {
	kick, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return err
	}
	call, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(kick)
		return err
	}
	if queue == requestQueue {
		g.kick, g.call = kick, call
	} else {
		defer unix.Close(kick)
		defer unix.Close(call)
	}
	base := uint64(memoryAt + queue*queueStride)
	return errors.Join(
		g.tell(setVringNum, pack(queue, uint32(queueSize))),
		g.tell(setVringBase, pack(queue, uint32(0))),
		g.tell(setVringAddr, pack(queue, uint32(0), base+descriptors, base+usedAt, base+availableAt, uint64(0))),
		g.tell(setVringCall, pack(uint64(queue)), call),
		g.tell(setVringKick, pack(uint64(queue)), kick),
		g.tell(setVringEnable, pack(queue, uint32(1))),
	)
}

// pack encodes numbers and arrays of fixed size.
func pack(values ...any) []byte {
	var b []byte
	for _, v := range values {
		b, _ = binary.Append(b, little, v) // which fails for other types only
	}
	return b
}

// tell sends a request of vhost-user.
func (g *Guest) tell(request uint32, payload []byte, fds ...int) error {
	var rights []byte
	if len(fds) > 0 {
		rights = unix.UnixRights(fds...)
	}
	message := append(pack(request, uint32(1), uint32(len(payload))), payload...)
	_, _, err := g.conn.WriteMsgUnix(message, rights, nil)
	return err
}

// ask sends a request that is answered by a number.
func (g *Guest) ask(request uint32) (uint64, error) {
	if err := g.tell(request, nil); err != nil {
		return 0, err
	}
	var reply [20]byte
	if n, err := g.conn.Read(reply[:]); err != nil || n < len(reply) {
		return 0, fmt.Errorf("the answer to request %d has %d bytes: %w", request, n, err)
	}
	return little.Uint64(reply[12:]), nil
}

// A descriptor's flags.
const (
	descriptorNext  = 1
	descriptorWrite = 2
)

// Do sends a request of FUSE about a node, waits for the reply, and returns what follows its header. The error is a
// unix.Errno if that is what the reply says.
func (g *Guest) Do(op Op, node uint64, args []byte) ([]byte, error) {
	g.unique++
	const headerSize = 40
	size := uint32(headerSize + len(args))
	header := pack(size, uint32(op), g.unique, node, uint32(1000), uint32(1000), uint32(1), uint32(0))
	copy(g.memory[requestAt:], header)
	copy(g.memory[requestAt+headerSize:], args)

	table := g.memory[requestQueue*queueStride+descriptors:]
	copy(table, pack(uint64(requestAt), size, uint16(descriptorNext), uint16(1)))
	copy(table[16:], pack(uint64(replyAt), uint32(maxReply), uint16(descriptorWrite), uint16(0)))
	ring := g.memory[requestQueue*queueStride+availableAt:]
	little.PutUint16(ring[4+2*(g.available%queueSize):], 0)
	g.available++
	atomic.StoreUint32(g.word(availableAt), uint32(g.available)<<16) // the lower half has flags

	event := pack(uint64(1))
	if _, err := unix.Write(g.kick, event); err != nil {
		return nil, err
	}
	for uint16(atomic.LoadUint32(g.word(usedAt))>>16) == g.used {
		if err := g.await(); err != nil {
			return nil, err
		}
	}
	g.used++
	reply := g.memory[replyAt:]
	if e := int32(little.Uint32(reply[4:])); e != 0 {
		return nil, unix.Errno(-e)
	}
	return append([]byte{}, reply[16:max(16, little.Uint32(reply))]...), nil
}

// word is the first one of a ring of the request queue.
func (g *Guest) word(offset int) *uint32 {
	return (*uint32)(unsafe.Pointer(&g.memory[requestQueue*queueStride+offset]))
}

// await returns when virtiofsd has answered something, or with an error if it is gone.
func (g *Guest) await() error {
	raw, err := g.conn.SyscallConn()
	if err != nil {
		return err
	}
	var waitErr error
	err = raw.Control(func(conn uintptr) {
		polls := []unix.PollFd{{Fd: int32(g.call), Events: unix.POLLIN}, {Fd: int32(conn), Events: unix.POLLIN}}
		switch _, err := unix.Poll(polls, -1); {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			waitErr = err
		case polls[0].Revents != 0:
			var event [8]byte
			_, waitErr = unix.Read(g.call, event[:])
		case polls[1].Revents != 0:
			waitErr = errors.New("virtiofsd is gone")
		}
	})
	return errors.Join(err, waitErr)
}
