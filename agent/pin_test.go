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
	conn := dialGuest(t, key, func(conn net.Conn, config *ssh.ServerConfig) {
		defer conn.Close()
		if server, _, _, err := ssh.NewServerConn(conn, config); err == nil {
			_ = server.Wait()
		}
	})
	client, err := p.Connect(t.Context(), conn, newKey(t))
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
