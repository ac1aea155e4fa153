//go:build linux

package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// loginTimeout is how long a connection may take to authenticate. It is long
// because the handshake takes its time in an emulated guest under load.
const loginTimeout = 60 * time.Second

// Server answers SSH connections by starting processes on this machine. Its
// fields must not change once it serves.
type Server struct {
	// Crypto are the algorithms; the zero value means the library's own.
	Crypto  ssh.Config
	HostKey ssh.Signer
	// Admit says whether a key opens the server to the given SSH user name.
	// There is no other way in.
	Admit func(user string, key ssh.PublicKey) error
	// Users finds those for whom processes are started.
	Users Users
	// Env returns settings for every process of a user.
	Env func(ctx context.Context, user User) []string
	// Ready returns when processes can be started. Its error is shown to the
	// client.
	Ready func(ctx context.Context) error
	// Controller answers the control subsystem. It is nil where clients other
	// than the host come in; these get no exact exec either, because that may
	// name any user.
	Controller Controller
	// KeysSocket is the path at which the host may have a socket made for keys
	// that it lends to all programs of the default user. It is empty where clients
	// other than the host come in.
	KeysSocket string
	// GPGSocket is the same for keys of a gpg-agent.
	GPGSocket string
	// Self is the path of a program that calls [RunSelf], such as the one that
	// serves. It is started with the rights of a session's user.
	Self string
	// Processes starts them; servers of one guest share it.
	Processes *Starter
	Logger    *slog.Logger
}

// Serve answers connections until the listener fails or ctx ends, and closes
// the listener. It returns when all its connections have ended.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	var connections sync.WaitGroup
	defer connections.Wait()
	for {
		conn, err := listener.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			cancel()
			return fmt.Errorf("cannot accept more connections: %w", err)
		}
		connections.Go(func() { s.ServeConn(ctx, conn) })
	}
}

// ServeConn answers one connection until it ends or ctx does, and closes it.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	// A transport without deadlines has another end to a stalled login.
	_ = conn.SetDeadline(time.Now().Add(loginTimeout))
	sshConn, channels, requests, err := ssh.NewServerConn(conn, s.config())
	if err != nil {
		s.Logger.Info("a login failed", "from", conn.RemoteAddr(), "err", err)
		return
	}
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var running sync.WaitGroup
	forwards := &listeners{server: s, client: sshConn}
	defer forwards.close()
	running.Go(func() { forwards.serve(requests) })
	for offered := range channels {
		running.Go(func() { s.serveChannel(ctx, offered, forwards) })
	}
	sshConn.Close()
	cancel()
	running.Wait()
}

func (s *Server) config() *ssh.ServerConfig {
	config := &ssh.ServerConfig{
		Config:        s.Crypto,
		ServerVersion: "SSH-2.0-sandbox",
		PublicKeyCallback: func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			return nil, s.Admit(meta.User(), key)
		},
	}
	config.AddHostKey(s.HostKey)
	return config
}

func (s *Server) serveChannel(ctx context.Context, offered ssh.NewChannel, forwards *listeners) {
	switch offered.ChannelType() {
	case "session":
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		defer channel.Close()
		(&session{server: s, channel: channel, forwards: forwards}).serve(ctx, requests)
	case "direct-tcpip":
		forwardTCP(ctx, offered)
	default:
		_ = offered.Reject(ssh.UnknownChannelType, "the agent knows sessions and TCP forwarding only")
	}
}

// AdmitKeys returns an Admit for a list of keys and one user name; the empty
// name stands for all.
func AdmitKeys(user string, keys ...ssh.PublicKey) func(string, ssh.PublicKey) error {
	known := make(map[string]bool, len(keys))
	for _, key := range keys {
		known[string(key.Marshal())] = true
	}
	return func(name string, key ssh.PublicKey) error {
		if user != "" && name != user {
			return fmt.Errorf("%q may not log in; the only user is %q", name, user)
		}
		if !known[string(key.Marshal())] {
			return errors.New("the key is not an authorised one")
		}
		return nil
	}
}
