//go:build linux

package guest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
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
	if err := awaitPaths(ctx, []string{file, socket}); err == nil {
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
	go func() { done <- awaitPaths(t.Context(), []string{file, socket}) }()
	listenUnix(t, socket)
	if err := <-done; err != nil {
		t.Error(err)
	}
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
