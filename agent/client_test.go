package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// silentGuest logs a client in and then never says anything again.
func silentGuest(t *testing.T) *Client {
	t.Helper()
	return connect(t, dialGuest(t, newKey(t), func(conn net.Conn, config *ssh.ServerConfig) {
		_, _, _, _ = ssh.NewServerConn(conn, config)
	}))
}

// dialGuest returns a connection to a guest that proves itself with the key and
// takes any client's; serve makes the handshake, and closes the guest's end if
// that is to be closed.
func dialGuest(t *testing.T, key ssh.Signer, serve func(net.Conn, *ssh.ServerConfig)) net.Conn {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() }) // not before the connection is accepted
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		config := &ssh.ServerConfig{NoClientAuth: true, Config: ChannelCrypto()}
		config.AddHostKey(key)
		serve(conn, config)
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// connect logs in, until the test ends.
func connect(t *testing.T, conn net.Conn) *Client {
	t.Helper()
	client, err := Connect(t.Context(), conn, newKey(t))
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

func TestSilentGuestIsNoticed(t *testing.T) {
	client := silentGuest(t)
	go client.keepAlive(time.Millisecond, 50*time.Millisecond)
	<-client.Done()
	if !errors.Is(client.Err(), ErrUnresponsive) {
		t.Errorf("got %v, want %v", client.Err(), ErrUnresponsive)
	}
}

func TestPausedGuestMayBeSilent(t *testing.T) {
	client := silentGuest(t)
	client.SetPaused(true)
	const timeout = 20 * time.Millisecond
	go client.keepAlive(time.Millisecond, timeout)
	select {
	case <-client.Done():
		t.Fatalf("the connection to a paused guest ended: %v", client.Err())
	case <-time.After(5 * timeout):
	}
	client.SetPaused(false)
	<-client.Done()
	if !errors.Is(client.Err(), ErrUnresponsive) {
		t.Errorf("got %v, want %v", client.Err(), ErrUnresponsive)
	}
}

func TestRequestsToASilentGuestEndWithTheirContext(t *testing.T) {
	client := silentGuest(t)
	ctx, cancel := contextWithReason(t)
	errs := make(chan error)
	go func() {
		_, err := client.Status(ctx)
		errs <- err
	}()
	go func() { errs <- client.Command(ctx, "true").Run() }()
	cancel()
	for range 2 {
		if err := <-errs; !errors.Is(err, errReason) {
			t.Errorf("got %v, want %v", err, errReason)
		}
	}
}
