//go:build linux

package server

import (
	"context"
	"io"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// forwardTimeout bounds the connection attempt for a forwarded port.
const forwardTimeout = 30 * time.Second

// forwardTCP connects a "direct-tcpip" channel, RFC 4254 section 7.2, with the
// address that it names.
func forwardTCP(ctx context.Context, offered ssh.NewChannel) {
	var target struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(offered.ExtraData(), &target); err != nil {
		_ = offered.Reject(ssh.ConnectionFailed, "the request names no address")
		return
	}
	dialer := net.Dialer{Timeout: forwardTimeout}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(target.Host, strconv.Itoa(int(target.Port))))
	if err != nil {
		_ = offered.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	channel, requests, err := offered.Accept()
	if err != nil {
		conn.Close()
		return
	}
	connect(channel, requests, conn.(*net.TCPConn))
}

// halfCloser is a connection of which one way can end before the other.
type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// deliverTimeout is how long the other side may take to read what a client has
// sent before it left.
const deliverTimeout = time.Minute

// connect copies both ways between a channel and a connection until both have
// ended, and closes them.
func connect(channel ssh.Channel, requests <-chan *ssh.Request, conn halfCloser) {
	defer conn.Close()
	defer channel.Close()
	delivered := make(chan struct{})
	// The requests end when the client closes the channel, and then nobody
	// wants to hear from the other side any more; but it is to get all that
	// was sent.
	go func() {
		ssh.DiscardRequests(requests)
		_ = conn.SetWriteDeadline(time.Now().Add(deliverTimeout))
		<-delivered
		conn.Close()
	}()
	var ways sync.WaitGroup
	ways.Go(func() {
		defer close(delivered)
		_, _ = io.Copy(conn, channel)
		_ = conn.CloseWrite()
	})
	ways.Go(func() {
		_, _ = io.Copy(channel, conn)
		_ = channel.CloseWrite()
	})
	ways.Wait()
}
