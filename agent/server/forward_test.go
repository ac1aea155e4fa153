//go:build linux

package server_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/agenttest"
	"golang.org/x/crypto/ssh"
)

var errReason = errors.New("the test has seen enough")

func contextWithReason(t *testing.T) (context.Context, func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(errReason) }
}

// forward serves the fixture's guest on a unix socket.
func forward(t *testing.T, f *agenttest.Server) (socket string) {
	t.Helper()
	up := agent.Upstream{Shared: f.Client(t).SSH(), Dial: func(ctx context.Context) (*ssh.Client, error) {
		return new(agent.Pin).Login(ctx, f.Dial(t), f.Key)
	}}
	hostKey := agenttest.NewKey(t)
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = agent.Forward(t.Context(), conn, up, hostKey) }()
		}
	}()
	return listener.Addr().String()
}

// through connects to the guest by way of the forwarder.
func through(t *testing.T, socket string) *agent.Client {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	client, err := agent.Connect(t.Context(), conn, agenttest.NewKey(t)) // any key will do
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func TestForwardPassesEverythingOn(t *testing.T) {
	f := newFixture(t)
	client := through(t, forward(t, f))
	var stdout, stderr bytes.Buffer
	cmd := client.Command(t.Context(), "sh", "-c", `cat; printf '%s' "$1" >&2; kill -USR2 $$`, "sh", "\xff")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in"), &stdout, &stderr
	exit := mustExit(t, cmd.Run(), 140)
	if exit.Signal != "USR2" || stdout.String() != "in" || stderr.String() != "\xff" {
		t.Errorf("%v, stdout %q, stderr %q", exit, stdout.String(), stderr.String())
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Error(err)
	}

	tt := startTerminal(t, client.Command(t.Context(), "sh", "-c", `trap 'stty size; exit 4' WINCH; echo up; while :; do sleep 0.05; done`))
	tt.await(t, "up")
	if err := tt.Resize(120, 50); err != nil {
		t.Fatal(err)
	}
	tt.await(t, "50 120")
	mustExit(t, tt.Wait(), 4)
}

func TestForwardKeepsDataBeforeTheExit(t *testing.T) {
	f := newFixture(t)
	client := through(t, forward(t, f))
	const size = 4 << 20
	for range 5 {
		cmd := client.Command(t.Context(), "sh", "-c", "head -c 4194304 /dev/zero; exit 7")
		var out bytes.Buffer
		cmd.Stdout = &out
		mustExit(t, cmd.Run(), 7)
		if out.Len() != size {
			t.Fatalf("%d bytes of %d", out.Len(), size)
		}
	}
}

func TestForwardHangsUpForItsClient(t *testing.T) {
	f := newFixture(t)
	client := through(t, forward(t, f))
	cmd := client.Command(t.Context(), "sh", "-c", "echo $$; exec sleep 1000")
	pid, _ := startWaiting(t, cmd)
	client.Close()
	isGone(t, pid)
}

func TestForwardRefusesWhatWouldConcernAll(t *testing.T) {
	f := newFixture(t)
	client := through(t, forward(t, f)).SSH()
	for kind, payload := range map[string][]byte{
		"no-more-sessions@openssh.com": nil,
		"keepalive@openssh.com":        nil, // refused by the guest, but answered
	} {
		if accepted, _, err := client.SendRequest(kind, true, payload); accepted || err != nil {
			t.Errorf("%s: %v, %v", kind, accepted, err)
		}
	}
	_, _, err := client.OpenChannel("unknown", nil)
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || refused.Reason != ssh.UnknownChannelType {
		t.Errorf("an unknown channel: %v", err)
	}
}

func TestForwardEndsWithTheGuest(t *testing.T) {
	f := newFixture(t)
	up := f.Client(t)
	down, theirs := agenttest.Pipe(t)
	forwarded := make(chan error, 1)
	go func() {
		forwarded <- agent.Forward(t.Context(), theirs, agent.Upstream{Shared: up.SSH()}, agenttest.NewKey(t))
	}()
	client, err := agent.Connect(t.Context(), down, agenttest.NewKey(t))
	if err != nil {
		t.Fatal(err)
	}
	up.Close()
	<-client.Done()
	if err := <-forwarded; err == nil {
		t.Error("the end of the guest went unnoticed")
	}
}

func TestForwardEndsWithItsContext(t *testing.T) {
	f := newFixture(t)
	up := f.Client(t)
	_, theirs := agenttest.Pipe(t)
	ctx, cancel := contextWithReason(t)
	forwarded := make(chan error, 1)
	go func() { forwarded <- agent.Forward(ctx, theirs, agent.Upstream{Shared: up.SSH()}, agenttest.NewKey(t)) }()
	cancel()
	if err := <-forwarded; !errors.Is(err, errReason) {
		t.Errorf("got %v, want %v", err, errReason)
	}
	if up.Err() != nil {
		t.Error("the guest's connection was closed, too")
	}
}

// openSSH returns a command of OpenSSH that goes through the socket.
func openSSH(t *testing.T, socket, program string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed: apt-get install openssh-client", program)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	options := []string{
		"-F", "none", "-o", "ProxyCommand=" + self + " proxy " + socket,
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
	}
	return exec.CommandContext(t.Context(), path, append(options, args...)...)
}

func TestForwardServesOpenSSH(t *testing.T) {
	f := newFixture(t)
	socket := forward(t, f)

	var stdout, stderr bytes.Buffer
	cmd := openSSH(t, socket, "ssh", "agent@guest", "cat; echo err >&2; exit 7")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader("in"), &stdout, &stderr
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 7 || stdout.String() != "in" || stderr.String() != "err\n" {
		t.Errorf("ssh: %v, stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}

	tty := openSSH(t, socket, "ssh", "-tt", "agent@guest", "test -t 0 && echo terminal")
	if out, err := tty.CombinedOutput(); err != nil || !strings.Contains(string(out), "terminal\r\n") {
		t.Errorf("ssh -tt: %q, %v", out, err)
	}
}

func TestForwardServesSFTPAndSCP(t *testing.T) {
	f := newFixture(t)
	socket := forward(t, f)
	dir := t.TempDir()
	data := bytes.Repeat([]byte("data\n"), 100_000)
	if err := os.WriteFile(filepath.Join(dir, "up"), data, 0o640); err != nil {
		t.Fatal(err)
	}
	if out, err := openSSH(t, socket, "scp", "-p", filepath.Join(dir, "up"), "agent@guest:copied").CombinedOutput(); err != nil {
		t.Fatalf("scp: %v: %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(f.Home, "copied")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("scp brought %d bytes of %d, %v", len(got), len(data), err)
	}
	batch := openSSH(t, socket, "sftp", "-b", "-", "agent@guest")
	batch.Stdin = strings.NewReader("get copied " + dir + "/down\nrename copied moved\n")
	if out, err := batch.CombinedOutput(); err != nil {
		t.Fatalf("sftp: %v: %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "down")); err != nil || !bytes.Equal(got, data) {
		t.Errorf("sftp brought %d bytes of %d, %v", len(got), len(data), err)
	}
	if _, err := os.Stat(filepath.Join(f.Home, "moved")); err != nil {
		t.Error(err)
	}
}
