package gate

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The structures of linux/seccomp.h, which have one layout on all 64-bit machines.
type notification struct {
	id         uint64
	pid, flags uint32 // pid is the thread's
	call       int32
	arch       uint32
	ip         uint64
	args       [6]uint64
}

type response struct {
	id    uint64
	value int64
	err   int32 // negative
	flags uint32
}

// Requests of ioctl(2) on a listener, which x/sys does not have.
const (
	ioctlReceive  = 0xc0502100 // SECCOMP_IOCTL_NOTIF_RECV
	ioctlSend     = 0xc0182101 // SECCOMP_IOCTL_NOTIF_SEND
	ioctlValid    = 0x40082102 // SECCOMP_IOCTL_NOTIF_ID_VALID
	ioctlSetFlags = 0x40082104 // SECCOMP_IOCTL_NOTIF_SET_FLAGS, since Linux 6.6

	syncWakeUp   = 1 // SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
	continueCall = 1 // SECCOMP_USER_NOTIF_FLAG_CONTINUE
)

// listener is the kernel's end of the questions.
type listener struct {
	file *os.File
	fd   uintptr
	stop int // an eventfd that ends receive
}

func newListener(f *os.File) (*listener, error) {
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	l := &listener{file: f, fd: f.Fd(), stop: stop}
	// Who asks and who answers never run at the same time, so that it is quicker when they share a processor.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, l.fd, ioctlSetFlags, syncWakeUp) // older kernels do without
	return l, nil
}

// errEnd says that there will be no more questions.
var errEnd = errors.New("end")

// receive waits for the next question.
func (l *listener) receive(n *notification) error {
	for {
		// The ioctl alone would not see the end of who asks, before Linux 6.11, or ours.
		polls := [...]unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.stop), Events: unix.POLLIN}}
		_, err := unix.Poll(polls[:], -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("waiting for the file server's next call: %w", err)
		case polls[1].Revents != 0:
			return errEnd
		case polls[0].Revents&unix.POLLIN == 0:
			return errEnd // nobody is left who could ask
		}
		*n = notification{} // the kernel insists
		switch _, _, e := unix.Syscall(unix.SYS_IOCTL, l.fd, ioctlReceive, uintptr(unsafe.Pointer(n))); e {
		case 0:
			return nil
		case unix.EINTR, unix.ENOENT: // who asked is gone
		default:
			return fmt.Errorf("asking for the file server's next call: %w", e)
		}
	}
}

// allow lets the call go on.
func (l *listener) allow(n *notification) error {
	return l.send(response{id: n.id, flags: continueCall})
}

// finish ends the call with the error, or as done if that is 0.
func (l *listener) finish(n *notification, e unix.Errno) error {
	return l.send(response{id: n.id, err: -int32(e)})
}

func (l *listener) send(r response) error {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, l.fd, ioctlSend, uintptr(unsafe.Pointer(&r)))
	if e != 0 && e != unix.ENOENT { // who asked is gone
		return fmt.Errorf("answering the file server's call: %w", e)
	}
	return nil
}

// valid tells whether the thread still waits for the answer, so that its number was not another's meanwhile.
func (l *listener) valid(n *notification) bool {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, l.fd, ioctlValid, uintptr(unsafe.Pointer(&n.id)))
	return e == 0
}

// interrupt ends receive.
func (l *listener) interrupt() {
	_, _ = unix.Write(l.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (l *listener) close() {
	l.file.Close()
	unix.Close(l.stop)
}
