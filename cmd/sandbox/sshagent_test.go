package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"net"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/crypto/ssh/agent"
)

func TestKeysAreLentWithAQuestionOrWithout(t *testing.T) {
	ring := agent.NewKeyring()
	for _, comment := range []string{"one", "two"} {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err == nil {
			err = ring.Add(agent.AddedKey{PrivateKey: private, Comment: comment})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(t.TempDir(), "agent")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = agent.ServeAgent(ring, conn)
			}()
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", socket)
	for _, test := range []struct {
		names      []string
		keys, asks int
	}{
		{nil, 0, 0},
		{[]string{"one"}, 1, 0},
		{[]string{"ask:one"}, 1, 1},
		{[]string{"one", "ask:two"}, 2, 1},
		{[]string{"ask"}, 2, 2},
		{[]string{"all", "ask:one"}, 2, 1}, // what asks is safer
	} {
		keys, asks, err := pickKeys(t.Context(), test.names)
		if err != nil || len(keys) != test.keys || len(asks) != test.asks {
			t.Errorf("%q: %q, of which %q ask, %v", test.names, keys, asks, err)
		}
		for _, key := range asks {
			if !slices.Contains(keys, key) {
				t.Errorf("%q: %s asks and is not lent", test.names, key)
			}
		}
	}
	if _, _, err := pickKeys(t.Context(), []string{"ask:three"}); err == nil {
		t.Error("a key that is not there is lent")
	}
}
