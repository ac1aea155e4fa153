//go:build linux

package guest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"net"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/crypto/ssh"
)

// serveSerial answers the host on the virtio-serial port.
func (s *service) serveSerial(ctx context.Context) error {
	host, err := s.hostServer()
	if err != nil {
		return err
	}
	open := func(ctx context.Context) (serialStream, error) {
		// Each time anew: a port that was unplugged comes back as another.
		device, err := serialPort(ctx, wire.SerialPort)
		if err != nil {
			return nil, err
		}
		port, err := openPort(ctx, device)
		if err != nil {
			return nil, err
		}
		s.progress.reach(agent.StageServing)
		return port, nil
	}
	handle := func(conn net.Conn) { host.ServeConn(ctx, conn) }
	return serveSerial(ctx, open, handle, s.logger)
}

// serveVsock answers the host on its vsock port.
func (s *service) serveVsock(ctx context.Context) error {
	host, err := s.hostServer()
	if err != nil {
		return err
	}
	listener, err := listenVsock(s.params.VsockPort)
	if err != nil {
		return err
	}
	s.progress.reach(agent.StageServing)
	return host.Serve(ctx, listener)
}

// hostServer makes the server for the host's channel. Its key is made anew at
// each boot, and the host keeps to the one of its first login: see agent.Pin.
func (s *service) hostServer() (*server.Server, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("cannot make the agent's key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("cannot make the agent's key: %w", err)
	}
	return s.completed(server.Server{
		Crypto:     agent.ChannelCrypto(),
		HostKey:    signer,
		Admit:      func(user string, key ssh.PublicKey) error { return server.AdmitKeys("", s.channelKey())(user, key) },
		Controller: s,
		KeysSocket: wire.KeysSocket,
		GPGSocket:  wire.GPGSocket,
	}), nil
}

// serveTCP answers ssh on the guest's TCP port, for the image's user and the
// keys that the host has named. It listens when it returns, so that nobody who
// waited for readiness is turned away. If the port is taken, the image runs an
// SSH server of its own, and that is no reason to do without the guest. stop
// ends it, with its connections, and leaves the port free.
func (s *service) serveTCP(ctx context.Context, config agent.BootConfig) (stop func()) {
	signer, keys, err := parseKeys(config)
	if err != nil {
		s.logger.Error("ssh is not answered", "err", err)
		return func() {}
	}
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", s.image.ListenSSH))
	if err != nil {
		s.logger.Error("ssh is not answered", "err", err)
		return func() {}
	}
	answering := s.completed(server.Server{HostKey: signer, Admit: server.AdmitKeys(s.image.User.Name, keys...)})
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		if err := answering.Serve(ctx, listener); err != nil {
			s.logger.Error("ssh is no longer answered", "err", err)
		}
	}()
	return func() {
		cancel()
		listener.Close() // here, and not when Serve has noticed
	}
}

// completed is a server with what all of the guest's have in common.
func (s *service) completed(part server.Server) *server.Server {
	part.Users = s.users
	part.Env = s.settings
	part.Ready = func(ctx context.Context) error {
		if err := s.progress.wait(ctx, agent.StageAgent); err != nil {
			return fmt.Errorf("the guest cannot run commands: %w", err)
		}
		return nil
	}
	part.Self = selfPath
	part.Processes = s.starter
	part.Logger = s.logger
	return &part
}
