//go:build linux

package guest

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
	defer conn.Close()
	channel, requests, err := offered.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	// The requests end when the client closes the channel, and then nobody
	// wants to hear from the other side any more.
	go func() {
		ssh.DiscardRequests(requests)
		conn.Close()
	}()
	tcp := conn.(*net.TCPConn)
	var ways sync.WaitGroup
	ways.Go(func() {
		_, _ = io.Copy(tcp, channel)
		_ = tcp.CloseWrite()
	})
	ways.Go(func() {
		_, _ = io.Copy(channel, tcp)
		_ = channel.CloseWrite()
	})
	ways.Wait()
}
