//go:build linux

package server_test

import (
	"context"
	"log/slog"
	"net"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/crypto/ssh"
)

// A launcher that has its own init in the guest can still answer its host with
// this package's server.
func ExampleServer() {
	serve := func(ctx context.Context, listener net.Listener, hostKey ssh.Signer, admitted ssh.PublicKey) error {
		user := server.User{Name: "me", UID: 1000, GID: 1000, Home: "/home/me", Shell: "/bin/sh"}
		processes := &server.Starter{}
		answering := &server.Server{
			Crypto:    agent.ChannelCrypto(),
			HostKey:   hostKey,
			Admit:     server.AdmitKeys("me", admitted),
			Users:     server.Accounts{Etc: "/etc", Default: user},
			Env:       server.LoginSettings(processes, slog.Default()),
			Ready:     func(context.Context) error { return nil },
			Self:      "/proc/self/exe",
			Processes: processes,
			Logger:    slog.Default(),
		}
		return answering.Serve(ctx, listener)
	}
	_ = serve
}
