package virtiofs

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// buffer is a log that may be read while it is written.
type buffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	awaited string
	found   chan struct{}
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.look()
	return b.b.Write(p)
}

// look tells who waits.
func (b *buffer) look() {
	if b.found != nil && strings.Contains(b.b.String(), b.awaited) {
		close(b.found)
		b.found = nil
	}
}

// await returns when the text has been written.
func (b *buffer) await(t *testing.T, text string) {
	t.Helper()
	found := make(chan struct{})
	b.mu.Lock()
	b.awaited, b.found = text, found
	b.look()
	b.mu.Unlock()
	await(t, found)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func config(t *testing.T) (ServerConfig, *buffer) {
	t.Helper()
	log := &buffer{}
	return ServerConfig{
		Directory: openDir(t, resolvedTempDir(t)), Socket: filepath.Join(t.TempDir(), "fs.sock"), Log: log,
		GuestUID: 1000, GuestGID: 1000, HostUID: os.Geteuid(), HostGID: os.Getegid(),
		AllowUnconfined: true, // so that the tests run where there are no user namespaces
	}, log
}

func openDir(t *testing.T, path string) *hostdir.Dir {
	t.Helper()
	dir, err := hostdir.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func TestServerLivesFromStartToStop(t *testing.T) {
	c, log := config(t)
	s, err := fake(t, become(t, fakeServes)).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(c.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v; want it to be open to its owner only", info, err)
	}
	conn, err := net.Dial("unix", c.Socket)
	if err != nil {
		t.Errorf("a client cannot connect at once: %v", err)
	} else {
		conn.Close()
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err while it runs: %v", err)
	}
	for range 2 {
		if err := s.Stop(t.Context()); err != nil {
			t.Errorf("Stop: %v", err)
		}
	}
	select {
	case <-s.Done():
	default:
		t.Error("Done is not closed after Stop")
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err after Stop: %v", err)
	}
	if _, err := os.Stat(c.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
	if !strings.Contains(log.String(), "isolation: "+s.Isolation()) {
		t.Errorf("the log does not tell the isolation: %s", log)
	}
}

func TestServerReportsItsDeath(t *testing.T) {
	c, _ := config(t)
	s, err := fake(t, become(t, fakeFails)).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	connectOnce(t, c.Socket)
	await(t, s.Done())
	if err := s.Err(); err == nil || !strings.Contains(err.Error(), "disk on fire") || !strings.Contains(err.Error(), c.Directory.Path()) {
		t.Errorf("Err = %v; want the log's last lines and the share", err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Errorf("Stop after death: %v", err)
	}
	if s.Err() == nil {
		t.Error("Stop has hidden the death")
	}
}

func TestServerThatIsKilledReportsThat(t *testing.T) {
	c, _ := config(t)
	s, err := fake(t, become(t, fakeServes)).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(s.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await(t, s.Done())
	if s.Err() == nil {
		t.Error("Err is nil, as if the guest had left")
	}
}

func TestServerThatTheGuestLeavesIsNotAnError(t *testing.T) {
	c, _ := config(t)
	s, err := fake(t, become(t, fakeLeaves)).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	connectOnce(t, c.Socket)
	await(t, s.Done())
	if err := s.Err(); err != nil {
		t.Errorf("Err = %v", err)
	}
}

func TestStartFallsBackWhereNamespacesAreRefused(t *testing.T) {
	c, log := config(t)
	s, err := fake(t, `case "$*" in *--sandbox=namespace*) `+sayRefused+` ;; esac; `+become(t, fakeServes)).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	ways := isolations(os.Geteuid(), c)
	if want := ways[len(ways)-1].name; s.Isolation() != want {
		t.Errorf("isolation %q, want %q", s.Isolation(), want)
	}
	if !strings.Contains(log.String(), "cannot be isolated by user namespace") || !strings.Contains(log.String(), "Unshare") {
		t.Errorf("the log does not give the reason: %s", log)
	}
}

func TestStartWithoutASandboxNeedsPermission(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root always has a sandbox for its own files: run the tests as an ordinary user to see this one")
	}
	c, _ := config(t)
	c.AllowUnconfined = false
	d := fake(t, `case "$*" in *--sandbox=namespace*) `+sayRefused+` ;; esac; `+become(t, fakeServes))
	_, err := d.Start(t.Context(), c)
	if _, ok := errors.AsType[*UnconfinedError](err); !ok {
		t.Errorf("got %v", err)
	}
}

func TestStartReportsThatNothingWorked(t *testing.T) {
	c, _ := config(t)
	_, err := fake(t, sayRefused).Start(t.Context(), c)
	if err == nil || !strings.Contains(err.Error(), "none of the ways") || !strings.Contains(err.Error(), "Unshare") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(c.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

func TestStartDoesNotFallBackForOtherFailures(t *testing.T) {
	for _, body := range []string{
		`echo "$*" >> "$0.calls"; echo "error: unexpected argument" >&2; exit 2`,
		`echo "$*" >> "$0.calls"; echo "Error entering sandbox: OpenNewRoot(Os { code: 13, kind: PermissionDenied })" >&2; exit 1`,
	} {
		c, _ := config(t)
		d := fake(t, body)
		if _, err := d.Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), c.Directory.Path()) {
			t.Errorf("got %v", err)
		}
		if calls, err := os.ReadFile(d.Path + ".calls"); err != nil || bytes.Count(calls, []byte("\n")) != 1 {
			t.Errorf("called: %q, %v; want one call", calls, err)
		}
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	c, _ := config(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := fake(t, "trap 'kill $!; exit 1' TERM; sleep 600 & wait").Start(ctx, c); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestStartHandsNothingOfTheEnvironmentOver(t *testing.T) {
	t.Setenv("RUST_LOG", "trace")
	t.Setenv("SECRET", "x")
	c, log := config(t)
	s, err := fake(t, "env >&2;"+become(t, fakeServes)).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	if got := log.String(); strings.Contains(got, "SECRET") || strings.Contains(got, "RUST_LOG") {
		t.Errorf("environment: %s", got)
	}
}

func TestStartRefusesBadConfigurations(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*ServerConfig)
		want  string
	}{
		"nothing":     {func(c *ServerConfig) { c.Directory = nil }, "no directory"},
		"long socket": {func(c *ServerConfig) { c.Socket = "/tmp/" + strings.Repeat("x", 103) }, "is 108 bytes long"},
		"no place":    {func(c *ServerConfig) { c.Socket += "/missing/x" }, "listening on the socket"},
		"negative id": {func(c *ServerConfig) { c.GuestUID = -1 }, "not a user or group id"},
	} {
		c, _ := config(t)
		test.spoil(&c)
		if _, err := fake(t, become(t, fakeServes)).Start(t.Context(), c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v; want %q", name, err, test.want)
		}
	}
	c, _ := config(t)
	c.HostUID++
	if err := c.validate(1000, 1000); err == nil || !strings.Contains(err.Error(), "only root can") {
		t.Errorf("files for somebody else: %v", err)
	}
}

func TestListenReplacesAStaleSocketButNoFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	for range 2 {
		socket, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		socket.Close() // leaves the path behind, as a crash does
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(path); err == nil {
		t.Error("a file was replaced")
	}
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func await(t *testing.T, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("nothing happened for a minute")
	}
}
