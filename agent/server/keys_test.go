//go:build linux

package server_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	sshagent "golang.org/x/crypto/ssh/agent"

	"github.com/sourcery-zone/sandbox/agent"
)

// lent is what programs find at the socket.
func lent(t *testing.T, socket string) string {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	keys, err := sshagent.NewClient(conn).List()
	if err != nil || len(keys) != 1 {
		t.Fatalf("keys %v, %v", keys, err)
	}
	return keys[0].Comment
}

// A connection that is made anew takes the socket over, also while the guest has not noticed the end of the one before.
func TestTheHostsKeysAreAtOneSocket(t *testing.T) {
	f := newFixture(t)
	f.Guest.State.Features = agent.Features()
	socket := filepath.Join(t.TempDir(), "keys")
	f.Config.KeysSocket = socket
	serve := func(ring sshagent.Agent) func(context.Context, io.ReadWriter) {
		return func(_ context.Context, borrower io.ReadWriter) { _ = sshagent.ServeAgent(ring, borrower) }
	}
	first := f.Client(t)
	if err := first.LendKeys(t.Context(), serve(keyring(t, "of the first"))); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if got := lent(t, socket); got != "of the first" {
		t.Error(got)
	}
	second := f.Client(t)
	if err := second.LendKeys(t.Context(), serve(keyring(t, "of the second"))); err != nil {
		t.Fatal(err)
	}
	if got := lent(t, socket); got != "of the second" {
		t.Error(got)
	}
	first.Close()
	if got := lent(t, socket); got != "of the second" {
		t.Error(got)
	}
}

// Each kind of keys has a socket of its own.
func TestTheHostsGPGKeysAreAtAnotherSocket(t *testing.T) {
	f := newFixture(t)
	f.Guest.State.Features = agent.Features()
	f.Config.KeysSocket, f.Config.GPGSocket = filepath.Join(t.TempDir(), "keys"), filepath.Join(t.TempDir(), "gpg")
	client := f.Client(t)
	serve := func(greeting string) func(context.Context, io.ReadWriter) {
		return func(_ context.Context, borrower io.ReadWriter) { _, _ = io.WriteString(borrower, greeting) }
	}
	if err := errors.Join(client.LendKeys(t.Context(), serve("ssh")), client.LendGPGKeys(t.Context(), serve("gpg"))); err != nil {
		t.Fatal(err)
	}
	for socket, want := range map[string]string{f.Config.KeysSocket: "ssh", f.Config.GPGSocket: "gpg"} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != want {
			t.Errorf("%q, %v", got, err)
		}
		conn.Close()
	}
}

func TestOnlyTheHostLendsKeys(t *testing.T) {
	f := newFixture(t)
	f.Guest.State.Features = agent.Features()
	f.Config.KeysSocket, f.Config.GPGSocket = "", ""
	client := f.Client(t)
	for _, lend := range []func(context.Context, func(context.Context, io.ReadWriter)) error{client.LendKeys, client.LendGPGKeys} {
		if err := lend(t.Context(), func(context.Context, io.ReadWriter) {}); err == nil {
			t.Error("keys are lent by somebody else")
		}
	}
}
