package stack

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Who keeps a link for others must not be woken by their frames.
func TestLinkIsKeptWithoutBeingWatched(t *testing.T) {
	ours, guests, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	defer guests.Close()
	for _, f := range []*os.File{ours, guests} {
		if err := f.SetDeadline(time.Time{}); !errors.Is(err, os.ErrNoDeadline) { // which files have that are not watched
			t.Errorf("an end is watched by Go's poller (%v)", err)
		}
	}
}

func TestFrameThatIsTakenWakesNobody(t *testing.T) {
	ours, guests, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer guests.Close()
	l, err := newLink(ours, 1500, gatewayMAC, func([]byte) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer l.shut()
	ready := func(r *readiness) bool {
		fds := []unix.PollFd{{Fd: int32(r.epoll.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	if _, err := unix.Write(int(ours.Fd()), make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Read(int(guests.Fd()), make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	if ready(l.readable) || ready(l.writable) {
		t.Error("the link is to be looked at, though nothing came")
	}
	if _, err := unix.Write(int(guests.Fd()), make([]byte, 60)); err != nil {
		t.Fatal(err)
	}
	if !ready(l.readable) {
		t.Error("a frame is there, and the link is not to be looked at")
	}
}
