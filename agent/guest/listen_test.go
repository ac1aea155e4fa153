//go:build linux

package guest

import (
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCommandsWaitForTheSocketsOfThisBoot(t *testing.T) {
	dir := t.TempDir()
	file, socket := filepath.Join(dir, "file"), filepath.Join(dir, "later", "socket")
	mustMkdirAll(t, filepath.Dir(socket))
	write(t, file, "")
	stale := listenUnix(t, socket)
	stale.SetUnlinkOnClose(false)
	if !listens(unixSockets, socket) {
		t.Error("somebody listens, and the kernel's list does not have it")
	}
	stale.Close()
	if !isSocket(socket) || listens(unixSockets, socket) {
		t.Fatal("the socket should be there without anybody behind it")
	}

	// Waiting does not end with what an earlier boot left.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := awaitListeners(ctx, []string{socket}); err == nil {
		t.Error("a socket without anybody behind it was enough")
	}
	forgetSockets([]string{file, socket, filepath.Join(dir, "absent")})
	if _, err := os.Lstat(file); err != nil {
		t.Errorf("what is no socket should stay: %v", err)
	}
	if isSocket(socket) {
		t.Error("the socket of an earlier boot is still there")
	}

	done := make(chan error, 1)
	go func() { done <- awaitListeners(t.Context(), []string{socket}) }()
	listenUnix(t, socket)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// The parts that this test program plays for
// [TestWhatProcess1ListensOnIsInherited].
const (
	listenerVariable = "SANDBOX_TEST_LISTENER"
	heirVariable     = "SANDBOX_TEST_HEIR"
)

// TestWhatProcess1ListensOnIsInherited connects before the program is there that
// accepts, which another one turns into as process 1 becomes systemd.
func TestWhatProcess1ListensOnIsInherited(t *testing.T) {
	for variable, part := range map[string]func(socket string) error{listenerVariable: listenAndBecome, heirVariable: serveInherited} {
		if socket := os.Getenv(variable); socket != "" {
			if err := part(socket); err != nil {
				t.Error(err)
			}
			return
		}
	}
	socket := filepath.Join(t.TempDir(), "socket")
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), listenerVariable+"="+socket)
	cmd.Stderr = os.Stderr
	begin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer begin.Close()
	if err := awaitListeners(t.Context(), []string{socket}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("not everybody may connect: %v, %v", info.Mode(), err)
	}
	early, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	begin.Close() // and only now it becomes another program
	if answer, err := io.ReadAll(early); string(answer) != "served" {
		t.Errorf("who connected early got %q, %v", answer, err)
	}
}

// listenAndBecome is the process of [TestWhatProcess1ListensOnIsInherited]: it
// listens, and when its input ends it becomes a program that serves one client
// of whichever socket it has inherited.
func listenAndBecome(socket string) error {
	if err := listenFor(socket); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return unix.Exec(selfPath, os.Args, []string{heirVariable + "=" + socket})
}

// serveInherited is what that becomes.
func serveInherited(socket string) error {
	for fd := range 100 {
		name, err := unix.Getsockname(fd)
		if address, ok := name.(*unix.SockaddrUnix); err != nil || !ok || address.Name != socket {
			continue
		}
		listener, err := net.FileListener(os.NewFile(uintptr(fd), socket))
		if err != nil {
			return err
		}
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "served")
		return err
	}
	return os.ErrNotExist
}

func listenUnix(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	return listener
}
