//go:build linux

package server

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/crypto/ssh"
)

// maxListeners bounds what one connection may listen on.
const maxListeners = 256

// listeners are what the guest listens on for one client, until its connection
// ends. What is connected there comes to the client as channels.
type listeners struct {
	server *Server
	client ssh.Conn

	mu     sync.Mutex
	open   map[string]net.Listener // by what the client calls it
	closed bool
	agent  string // the socket for the client's agent of keys; empty: none yet
}

// serve answers the requests that concern the whole connection. Refusals keep
// an idle client content.
func (l *listeners) serve(requests <-chan *ssh.Request) {
	for request := range requests {
		accepted, payload := false, []byte(nil)
		switch request.Type {
		case "tcpip-forward":
			accepted, payload = l.listenTCP(request.Payload)
		case "cancel-tcpip-forward":
			accepted = l.cancelTCP(request.Payload)
		case wire.RequestAgentSocket:
			if socket, err := l.agentSocket(); err == nil {
				accepted, payload = true, []byte(socket)
			}
		case wire.RequestKeysSocket:
			accepted = l.listenForKeys(l.server.KeysSocket, wire.ChannelAgent)
		case wire.RequestGPGSocket:
			accepted = l.listenForKeys(l.server.GPGSocket, wire.ChannelGPG)
		}
		if request.WantReply {
			// It fails only when the connection has ended.
			_ = request.Reply(accepted, payload)
		}
	}
}

// tcpForward is the payload of "tcpip-forward", RFC 4254 section 7.1.
type tcpForward struct {
	Address string
	Port    uint32
}

func (f tcpForward) String() string { return net.JoinHostPort(f.Address, strconv.Itoa(int(f.Port))) }

// privilegedPorts end before this one; below it only root may listen, for whom
// others than the host do not log in.
const privilegedPorts = 1024

// listenTCP listens on the guest's loopback address, as sshd does unless it is
// told otherwise, whatever address the client names.
func (l *listeners) listenTCP(payload []byte) (accepted bool, reply []byte) {
	var wanted tcpForward
	if ssh.Unmarshal(payload, &wanted) != nil || wanted.Port > 65535 {
		return false, nil
	}
	if wanted.Port > 0 && wanted.Port < privilegedPorts && l.server.Controller == nil {
		return false, nil
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(wanted.Port))))
	if err != nil {
		l.server.Logger.Info("a port cannot be forwarded", "port", wanted.Port, "err", err)
		return false, nil
	}
	if wanted.Port == 0 {
		wanted.Port = uint32(listener.Addr().(*net.TCPAddr).Port)
		reply = ssh.Marshal(struct{ Port uint32 }{wanted.Port})
	}
	added := l.add(wanted.String(), listener, func(conn net.Conn) {
		origin := conn.RemoteAddr().(*net.TCPAddr)
		l.pass(conn.(*net.TCPConn), wire.ChannelForwardedTCP, ssh.Marshal(struct {
			Address    string
			Port       uint32
			Origin     string
			OriginPort uint32
		}{wanted.Address, wanted.Port, origin.IP.String(), uint32(origin.Port)}))
	})
	return added, reply
}

func (l *listeners) cancelTCP(payload []byte) bool {
	var wanted tcpForward
	if ssh.Unmarshal(payload, &wanted) != nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	listener, ok := l.open[wanted.String()]
	if ok {
		listener.Close()
		delete(l.open, wanted.String())
	}
	return ok
}

// agentSocket returns the path of a socket for programs of the guest's user
// that want to use the agent of the client's keys.
func (l *listeners) agentSocket() (string, error) {
	l.mu.Lock()
	path := l.agent
	l.mu.Unlock()
	if path != "" {
		return path, nil
	}
	user, err := l.server.Users.Lookup("")
	if err != nil {
		return "", err
	}
	// Where OpenSSH has its own. Nobody else can have made the directory.
	dir, err := os.MkdirTemp("", "ssh-sandbox-")
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, "agent")
	listener, err := net.Listen("unix", path)
	if err == nil && os.Geteuid() == 0 {
		for _, file := range []string{path, dir} { // the directory last: until then only root is in it
			if err == nil {
				err = os.Chown(file, user.UID, user.GID)
			}
		}
	}
	if err != nil {
		os.RemoveAll(dir)
		return "", fmt.Errorf("cannot make a socket for the client's agent of keys: %w", err)
	}
	pass := func(conn net.Conn) { l.pass(conn.(*net.UnixConn), wire.ChannelAgent, nil) }
	if !l.add(path, agentListener{listener, dir}, pass) {
		return "", net.ErrClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.agent = path
	return path, nil
}

// agentListener takes its directory along.
type agentListener struct {
	net.Listener
	dir string
}

func (l agentListener) Close() error {
	err := l.Listener.Close()
	_ = os.RemoveAll(l.dir) // a user who has put more there may keep it
	return err
}

// add lets handle have the connections of a listener, which it takes over.
func (l *listeners) add(name string, listener net.Listener, handle func(net.Conn)) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, exists := l.open[name]; exists || l.closed || len(l.open) >= maxListeners {
		listener.Close()
		return false
	}
	if l.open == nil {
		l.open = make(map[string]net.Listener)
	}
	l.open[name] = listener
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	return true
}

// pass connects conn with a channel to the client, and closes it.
func (l *listeners) pass(conn halfCloser, kind string, data []byte) {
	channel, requests, err := l.client.OpenChannel(kind, data)
	if err != nil {
		conn.Close()
		return
	}
	connect(channel, requests, conn)
}

// close ends all listening. What is connected already ends with the client.
func (l *listeners) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, listener := range l.open {
		listener.Close()
	}
}
