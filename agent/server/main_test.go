//go:build linux

package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/agenttest"
	"github.com/sourcery-zone/sandbox/agent/server"
)

// TestMain lets the test binary stand in for the agent's program, and for the
// ProxyCommand of a real ssh.
func TestMain(m *testing.M) {
	agenttest.RunSelf()
	if len(os.Args) == 3 && os.Args[1] == "proxy" {
		if err := proxy(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// proxy connects the standard streams with a unix socket.
func proxy(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	go func() {
		_, _ = io.Copy(conn, os.Stdin)
		_ = conn.(*net.UnixConn).CloseWrite()
	}()
	_, err = io.Copy(os.Stdout, conn)
	return err
}

// newFixture returns a server that runs in the test.
func newFixture(t *testing.T) *agenttest.Server {
	t.Helper()
	f := agenttest.NewServer(t)
	path := f.Config.Env
	f.Config.Env = func(ctx context.Context, user server.User) []string {
		return append(path(ctx, user), "FROM_BOOT=boot", "OVERRIDDEN=boot")
	}
	f.Guest.State = agent.Status{
		Reached: map[agent.Stage]time.Duration{agent.StageAgent: 1500 * time.Millisecond},
		System:  "degraded", FailedUnits: []string{"a.service"},
	}
	return f
}

// script writes a program into the home and returns its path.
func script(t *testing.T, f *agenttest.Server, name, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(f.Home, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// mustExit fails unless err is an exit with the given status.
func mustExit(t *testing.T, err error, code int) *agent.ExitError {
	t.Helper()
	exit, ok := errors.AsType[*agent.ExitError](err)
	if !ok || exit.Code != code {
		t.Fatalf("got %v, want exit status %d", err, code)
	}
	return exit
}

// patience is for what takes an instant, on a machine that does much else.
const patience = time.Minute

// eventually fails unless the condition comes true. It is for what happens in a
// process that tells nobody.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not happen that %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func contains(t *testing.T, text, part string) {
	t.Helper()
	if !strings.Contains(text, part) {
		t.Errorf("%q does not contain %q", text, part)
	}
}
