package agent

import (
	"net"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// login logs in to a guest that proves itself with the key.
func login(t *testing.T, p *Pin, key ssh.Signer) error {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		theirs, err := listener.Accept()
		if err != nil {
			return
		}
		defer theirs.Close()
		config := &ssh.ServerConfig{NoClientAuth: true, Config: ChannelCrypto()}
		config.AddHostKey(key)
		if conn, _, _, err := ssh.NewServerConn(theirs, config); err == nil {
			_ = conn.Wait()
		}
	}()
	ours, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client, err := p.Connect(t.Context(), ours, newKey(t))
	if err == nil {
		client.Close()
	}
	return err
}

func TestWhoTakesTheGuestsPlaceIsRefused(t *testing.T) {
	guest, other := newKey(t), newKey(t)
	var pin Pin
	for range 2 {
		if err := login(t, &pin, guest); err != nil {
			t.Fatal(err)
		}
	}
	if err := login(t, &pin, other); err == nil || !strings.Contains(err.Error(), "somebody else answers in the guest's place") {
		t.Errorf("another key: %v", err)
	}
	if err := login(t, &pin, guest); err != nil {
		t.Errorf("the guest after that: %v", err)
	}
}
