//go:build linux

package guest_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/guest"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary stand in for two programs: the agent that is
// started once more for SFTP, and the ProxyCommand of a real ssh.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "sftp":
		exitWith(guest.ServeSFTP(os.Stdin, os.Stdout, os.Getenv("HOME")))
	case len(os.Args) == 3 && os.Args[1] == "proxy":
		exitWith(proxy(os.Args[2]))
	}
	os.Exit(m.Run())
}

func exitWith(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// proxy connects the standard streams with a unix socket.
func proxy(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// testUsers knows the user who runs the tests, by the name "agent".
type testUsers struct{ home string }

func (u testUsers) Lookup(name string) (guest.User, error) {
	switch name {
	case "", "agent":
		return guest.User{
			Name: "agent", UID: os.Getuid(), GID: os.Getgid(), Groups: []int{os.Getgid()},
			Home: u.home, Shell: "/bin/sh",
		}, nil
	case "nobody":
		return guest.User{Name: name, UID: 65534, GID: 65534, Home: "/", Shell: "/bin/sh"}, nil
	}
	return guest.User{}, fmt.Errorf("the guest has no user named %q", name)
}

// fakeGuest stands in for the guest's own service.
type fakeGuest struct {
	mu         sync.Mutex
	configured *agent.BootConfig
	failure    error
	ready      chan struct{} // closed when the stages are reached
	poweredOff bool
	synced     bool
	resumed    *agent.ResumeConfig
	grown      int64
	clock      time.Duration // how far it is ahead
}

func (g *fakeGuest) Configure(_ context.Context, config agent.BootConfig) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.configured != nil {
		return &agent.ControlError{Code: agent.CodeAlreadyConfigured, Message: "configured before"}
	}
	g.configured = &config
	return g.failure
}

func (g *fakeGuest) Status() agent.Status {
	return agent.Status{
		Reached: map[agent.Stage]time.Duration{agent.StageAgent: 1500 * time.Millisecond},
		System:  "degraded", FailedUnits: []string{"a.service"},
	}
}

func (g *fakeGuest) Wait(ctx context.Context, _ agent.Stage) error {
	select {
	case <-g.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failure
}

func (g *fakeGuest) PowerOff(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.poweredOff = true
	return nil
}

func (g *fakeGuest) Sync(context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.synced = true
	return nil
}

func (g *fakeGuest) Resume(_ context.Context, config agent.ResumeConfig) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.resumed = &config
	return nil
}

func (g *fakeGuest) GrowDisk(_ context.Context, bytes int64) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.grown = bytes
	return nil
}

func (g *fakeGuest) Clock(advance time.Duration) (time.Time, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.clock += advance
	return time.Now().Add(g.clock), nil
}

// fixture is a server that runs in the test, with its host's key.
type fixture struct {
	server *guest.Server
	guest  *fakeGuest
	key    ssh.Signer
	home   string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{key: newKey(t), home: t.TempDir(), guest: &fakeGuest{ready: make(chan struct{})}}
	close(f.guest.ready)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f.server = &guest.Server{
		Crypto:  agent.ChannelCrypto(),
		HostKey: newKey(t),
		Admit:   guest.AdmitKeys("", f.key.PublicKey()),
		Users:   testUsers{f.home},
		// The agent's own choice for PATH is for guests: the programs of this
		// machine may be elsewhere, as where Nix builds.
		Env: func(context.Context, guest.User) []string {
			return []string{"FROM_BOOT=boot", "OVERRIDDEN=boot", "PATH=" + os.Getenv("PATH")}
		},
		Ready:      func(ctx context.Context) error { return f.guest.Wait(ctx, agent.StageAgent) },
		Controller: f.guest,
		Self:       self,
		Processes:  &guest.Starter{},
		Logger:     slog.New(slog.DiscardHandler),
	}
	return f
}

// dial returns the client's end of a connection that the server answers.
func (f *fixture) dial(t *testing.T) net.Conn {
	t.Helper()
	ours, theirs := socketPair(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		f.server.ServeConn(ctx, theirs)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return ours
}

func (f *fixture) client(t *testing.T) *agent.Client {
	t.Helper()
	client, err := agent.Connect(t.Context(), f.dial(t), f.key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// socketPair returns two connected stream sockets, which buffer as a real
// transport does.
func socketPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "socket")
		conns[i], err = net.FileConn(file)
		file.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

// script writes a program into the home and returns its path.
func (f *fixture) script(t *testing.T, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(f.home, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustExit fails unless err is an exit with the given status.
func mustExit(t *testing.T, err error, code int) *agent.ExitError {
	t.Helper()
	exit, ok := errors.AsType[*agent.ExitError](err)
	if !ok || exit.Code != code {
		t.Fatalf("got %v, want exit status %d", err, code)
	}
	return exit
}

// patience is for what takes an instant, on a machine that does much else.
const patience = time.Minute

// eventually fails unless the condition comes true. It is for what happens in a
// process that tells nobody.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen that %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q does not contain %q", text, part)
	}
}
