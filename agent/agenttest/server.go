//go:build linux

package agenttest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/server"
)

// Server is an agent that runs in a test.
type Server struct {
	// Config may be changed until somebody connects. Its Self is the test binary.
	Config *server.Server
	// Guest is the Controller of Config.
	Guest *Guest
	// Key is what the server admits.
	Key ssh.Signer
	// Home is the home of the user "agent", who is the one who runs the tests.
	Home string
}

// NewServer returns an agent whose guest is ready. It knows two users: agent, who
// is whom commands are run as, and nobody, who needs a test that is run by root.
func NewServer(t testing.TB) *Server {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Guest: &Guest{Ready: make(chan struct{})}, Key: NewKey(t), Home: t.TempDir()}
	close(s.Guest.Ready)
	s.Config = &server.Server{
		Crypto:  agent.ChannelCrypto(),
		HostKey: NewKey(t),
		Admit:   server.AdmitKeys("", s.Key.PublicKey()),
		Users:   users{s.Home},
		// The agent's own choice for PATH is for guests: the programs of this
		// machine may be elsewhere, as where Nix builds.
		Env:        func(context.Context, server.User) []string { return []string{"PATH=" + os.Getenv("PATH")} },
		Ready:      func(ctx context.Context) error { return s.Guest.Wait(ctx, agent.StageAgent) },
		Controller: s.Guest,
		Self:       self,
		Processes:  &server.Starter{},
		Logger:     slog.New(slog.DiscardHandler),
	}
	return s
}

// Dial returns the client's end of a connection that the server answers until
// the test ends.
func (s *Server) Dial(t testing.TB) net.Conn {
	t.Helper()
	ours, theirs := Pipe(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Config.ServeConn(ctx, theirs)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return ours
}

// Client returns a client of the server until the test ends.
func (s *Server) Client(t testing.TB) *agent.Client {
	t.Helper()
	client, err := agent.Connect(t.Context(), s.Dial(t), s.Key)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// NewKey returns a key of the kind that host and guest use.
func NewKey(t testing.TB) ssh.Signer {
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

// Pipe returns two connected stream sockets until the test ends, which buffer as
// a real transport does.
func Pipe(t testing.TB) (net.Conn, net.Conn) {
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

// RunSelf is for the beginning of TestMain. In a process that the server has
// started as its own program it does what that is to do, and ends the process.
func RunSelf() {
	if os.Args[0] != "sandbox-agent" {
		return
	}
	if err := server.RunSelf(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// users knows the user who runs the tests, by the name agent.
type users struct{ home string }

// Lookup implements [server.Users].
func (u users) Lookup(name string) (server.User, error) {
	switch name {
	case "", "agent":
		return server.User{
			Name: "agent", UID: os.Getuid(), GID: os.Getgid(), Groups: []int{os.Getgid()},
			Home: u.home, Shell: "/bin/sh",
		}, nil
	case "nobody":
		return server.User{Name: name, UID: 65534, GID: 65534, Home: "/", Shell: "/bin/sh"}, nil
	}
	return server.User{}, fmt.Errorf("the guest has no user named %q", name)
}
