//go:build linux

package guest_test

import (
	"context"
	"log/slog"
	"net"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/guest"
	"golang.org/x/crypto/ssh"
)

// A launcher that has its own init in the guest can still answer its host with
// this package's server.
func ExampleServer() {
	serve := func(ctx context.Context, listener net.Listener, hostKey ssh.Signer, admitted ssh.PublicKey) error {
		user := guest.ImageUser{Name: "me", UID: 1000, GID: 1000, Home: "/home/me", Shell: "/bin/sh"}
		server := &guest.Server{
			Crypto:    agent.ChannelCrypto(),
			HostKey:   hostKey,
			Admit:     guest.AdmitKeys("me", admitted),
			Users:     guest.ImageUsers{Etc: "/etc", Default: user},
			Env:       func(context.Context, guest.User) []string { return nil },
			Ready:     func(context.Context) error { return nil },
			Self:      "/proc/self/exe",
			Processes: &guest.Starter{},
			Logger:    slog.Default(),
		}
		return server.Serve(ctx, listener)
	}
	_ = serve
}
