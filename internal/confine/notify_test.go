package confine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/process"
)

// notification and response are those of the kernel (linux/seccomp.h), with what this test needs of them.
type notification struct {
	id   uint64
	rest [72]byte
}

type response struct {
	id    uint64
	value int64
	err   int32
	flags uint32
}

// The requests of ioctl(2) that are made of the two's sizes.
const (
	receiveNotification = 0xc0502100
	sendResponse        = 0xc0182101
)

// answerAll lets all calls fail, until nobody is left who makes any.
func answerAll(listener *os.File, e unix.Errno) {
	defer listener.Close()
	fd := listener.Fd()
	for {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if poll[0].Revents&unix.POLLIN == 0 {
			if poll[0].Revents&unix.POLLHUP != 0 {
				return
			}
			continue
		}
		var n notification
		if _, _, err := unix.Syscall(unix.SYS_IOCTL, fd, receiveNotification, uintptr(unsafe.Pointer(&n))); err != 0 {
			continue
		}
		r := response{id: n.id, err: -int32(e)}
		_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, sendResponse, uintptr(unsafe.Pointer(&r)))
	}
}

// listenerTest is the name under which this program asks for a listener where there is one.
const listenerTest = "listener test"

func asksForListener() {
	filter := &Filter{Rules: []Rule{{Calls: []int{unix.SYS_MKDIRAT}, Do: Notify}}, Default: Allow}
	_, _, err := Start(context.Background(), Program{Path: "/bin/true"}, Spec{Filter: filter, Listener: func(f *os.File) { f.Close() }}, process.Options{})
	notify, ok := errors.AsType[*NotifyError](err)
	fmt.Printf("taken: %v (%v)\n", ok && notify.Taken, err)
}

// mkdir runs mkdir(1) in a world where somebody decides about its calls, and returns what it wrote.
func mkdir(t *testing.T, dir string, listener func(*os.File)) string {
	t.Helper()
	var out bytes.Buffer
	program := Program{Path: "/bin/mkdir", Args: []string{"-m", "0700", dir}, Env: []string{"LC_ALL=C"}}
	p, _, err := Start(t.Context(), program, Spec{Filter: asksAboutDirectories, Listener: listener}, process.Options{Log: &out})
	if _, ok := errors.AsType[*NotifyError](err); ok {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	return out.String()
}

var asksAboutDirectories = &Filter{Rules: []Rule{{Calls: slices.Concat([]int{unix.SYS_MKDIRAT}, mkdirCalls), Do: Notify}}, Default: Allow}

func TestListenerDecides(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	done := make(chan struct{})
	said := mkdir(t, dir, func(f *os.File) {
		go func() {
			defer close(done)
			answerAll(f, unix.EACCES)
		}()
	})
	<-done // the listener tells when nobody is left
	if !strings.Contains(said, "Permission denied") {
		t.Errorf("mkdir says %q", said)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestClosedListenerRefuses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	said := mkdir(t, dir, func(f *os.File) { f.Close() })
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) || !strings.Contains(said, "not implemented") {
		t.Errorf("mkdir says %q, and the directory: %v", said, err)
	}
}

// A process has one listener at most.
func TestSecondListenerIsRefused(t *testing.T) {
	var out, log bytes.Buffer
	p := Program{Self: listenerTest, Stdout: &out}
	started, _, err := Start(t.Context(), p, Spec{Filter: asksAboutDirectories, Listener: func(f *os.File) { go answerAll(f, unix.EACCES) }}, process.Options{Log: &log})
	if _, ok := errors.AsType[*NotifyError](err); ok {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	<-started.Done()
	if !strings.Contains(out.String(), "taken: true") {
		t.Errorf("the second one was told %q, %s", out.String(), log.String())
	}
}
