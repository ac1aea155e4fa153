package agent

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
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

func TestRawStringsSurviveJSON(t *testing.T) {
	for in, want := range map[RawString]string{
		"":         `""`,
		"plain":    `"plain"`,
		"ü\n\x00":  `"ü\n\u0000"`,
		"\xff\x00": `{"base64":"/wA="}`,
	} {
		data, err := json.Marshal(in)
		if err != nil || string(data) != want {
			t.Errorf("%q became %s, %v; want %s", in, data, err, want)
		}
		var out RawString
		if err := json.Unmarshal(data, &out); err != nil || out != in {
			t.Errorf("%q came back as %q, %v", in, out, err)
		}
	}
	var s RawString
	if err := json.Unmarshal([]byte("7"), &s); err == nil {
		t.Error("a number was taken for a string")
	}
}

func TestSignalNamesAndNumbers(t *testing.T) {
	for name, number := range map[string]int{"HUP": 1, "KILL": 9, "TERM": 15, "WINCH": 28, "": 0, "SIGTERM": 0, "NOPE": 0} {
		if got := SignalNumber(name); got != number {
			t.Errorf("%q has the number %d, want %d", name, got, number)
		}
		if number != 0 && SignalName(number) != name {
			t.Errorf("%d has the name %q, want %q", number, SignalName(number), name)
		}
	}
	for _, number := range []int{-1, 0, 32, 1000} {
		if got := SignalName(number); got != "" {
			t.Errorf("%d has the name %q", number, got)
		}
	}
}
