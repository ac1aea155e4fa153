//go:build linux

package server_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/agenttest"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/crypto/ssh"
)

func TestOnlyTheHostsKeyIsAdmitted(t *testing.T) {
	f := newFixture(t)
	if _, err := agent.Connect(t.Context(), f.Dial(t), agenttest.NewKey(t)); err == nil {
		t.Error("a stranger's key was admitted")
	} else {
		contains(t, err.Error(), "cannot log in to the guest's agent")
	}
	for name, auth := range map[string][]ssh.AuthMethod{
		"none":     nil,
		"password": {ssh.Password("password")},
		"keyboard": {ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil })},
	} {
		_, _, _, err := ssh.NewClientConn(f.Dial(t), "", &ssh.ClientConfig{
			User: "agent", Auth: auth, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
		})
		if err == nil {
			t.Errorf("%s was admitted", name)
		}
	}
}

func TestAdmitKeysWantsTheRightUser(t *testing.T) {
	known, other := agenttest.NewKey(t).PublicKey(), agenttest.NewKey(t).PublicKey()
	admit := server.AdmitKeys("agent", known)
	if err := admit("agent", known); err != nil {
		t.Error(err)
	}
	for name, key := range map[string]ssh.PublicKey{"root": known, "agent": other} {
		if admit(name, key) == nil {
			t.Errorf("%s was admitted with a wrong name or key", name)
		}
	}
	if server.AdmitKeys("agent")("agent", known) == nil {
		t.Error("an empty list admits a key")
	}
}

// plainClient is a client of a server that is open to others than the host.
func plainClient(t *testing.T) *ssh.Client {
	t.Helper()
	f := newFixture(t)
	f.Config.Controller = nil
	f.Config.Crypto = ssh.Config{}
	conn, channels, requests, err := ssh.NewClientConn(f.Dial(t), "", &ssh.ClientConfig{
		User: "agent", Auth: []ssh.AuthMethod{ssh.PublicKeys(f.Key)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := ssh.NewClient(conn, channels, requests)
	t.Cleanup(func() { client.Close() })
	return client
}

func TestOthersGetNeitherControlNorExactExec(t *testing.T) {
	client := plainClient(t)
	if _, err := agent.NewClient(client).Status(t.Context()); err == nil {
		t.Error("the control subsystem was given")
	}
	err := agent.NewClient(client).Command(t.Context(), "id").Run()
	if err == nil || !strings.Contains(err.Error(), "refuses") {
		t.Errorf("exact exec: %v", err)
	}
}

func TestPlainSSHSessions(t *testing.T) {
	client := plainClient(t)
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Setenv("FROM_CLIENT", "a b"); err != nil {
		t.Error(err)
	}
	out, err := session.Output(`echo "$FROM_CLIENT" $FROM_BOOT | tr a-z A-Z; exit 6`)
	if exit, ok := errors.AsType[*ssh.ExitError](err); !ok || exit.ExitStatus() != 6 || string(out) != "A B BOOT\n" {
		t.Errorf("%q, %v", out, err)
	}

	shell, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	keys, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Shell(); err != nil {
		t.Fatal(err)
	}
	if again, err := shell.SendRequest("shell", true, nil); again || err != nil {
		t.Errorf("a second process in one session: %v, %v", again, err)
	}
	if _, err := io.WriteString(keys, "kill -TERM $$\n"); err != nil {
		t.Fatal(err)
	}
	err = shell.Wait()
	if exit, ok := errors.AsType[*ssh.ExitError](err); !ok || exit.Signal() != "TERM" {
		t.Errorf("got %v, want an end by TERM", err)
	}
}

func TestSFTP(t *testing.T) {
	client, err := sftp.NewClient(plainClient(t))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	data := bytes.Repeat([]byte("data"), 100_000)
	file, err := client.Create("file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.ReadFrom(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	file.Close()
	home, err := client.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(home + "/file"); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes arrived of %d, %v", len(got), len(data), err)
	}
	if _, err := client.Open("absent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that the file does not exist", err)
	}
}

func TestTCPForwarding(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
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
			// Echoes all of it, and only then: both half-closes have to pass.
			data, _ := io.ReadAll(conn)
			_, _ = conn.Write(data)
			conn.Close()
		}
	}()
	client := plainClient(t)
	conn, err := client.DialContext(t.Context(), "tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data := strings.Repeat("x", 1<<20)
	go func() {
		_, _ = io.WriteString(conn, data)
		_ = conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || string(got) != data {
		t.Errorf("%d bytes came back of %d, %v", len(got), len(data), err)
	}

	listener.Close()
	if _, err := client.Dial("tcp", listener.Addr().String()); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
}

func TestControl(t *testing.T) {
	f := newFixture(t)
	client := f.Client(t)
	config := agent.BootConfig{
		Hostname: "box", TimeZone: agent.TimeZone{Name: "Asia/Tokyo", Data: []byte("TZif")}, Entropy: []byte{1, 2},
		Mounts: []agent.Mount{{Tag: "home", Target: "/home/agent", ReadOnly: true}},
	}
	if err := client.Configure(t.Context(), config); err != nil {
		t.Fatal(err)
	}
	if got := f.Guest.Configured; got.Hostname != "box" || got.TimeZone.Name != "Asia/Tokyo" || got.Mounts[0] != config.Mounts[0] {
		t.Errorf("the guest got %+v", got)
	}
	err := client.Configure(t.Context(), config)
	if refused, ok := errors.AsType[*wire.ControlError](err); !ok || refused.Code != wire.CodeAlreadyConfigured {
		t.Errorf("configured twice: %v", err)
	}
	status, err := client.Wait(t.Context(), agent.StageSystem)
	if err != nil || status.Reached[agent.StageAgent] != 1500*time.Millisecond || status.FailedUnits[0] != "a.service" {
		t.Errorf("%+v, %v", status, err)
	}
	if !slices.Equal(status.Features, agent.Features()) {
		t.Errorf("the agent has the features %q, want %q", status.Features, agent.Features())
	}
	_, err = client.Wait(t.Context(), "lunch")
	if refused, ok := errors.AsType[*wire.ControlError](err); !ok || refused.Code != wire.CodeBadRequest {
		t.Errorf("an unknown stage: %v", err)
	}
	resume := agent.ResumeConfig{Entropy: []byte{1}, Restored: true}
	if err := client.Resume(t.Context(), resume); err != nil || !reflect.DeepEqual(f.Guest.Resumed, &resume) {
		t.Errorf("resume: %v, the guest got %+v", err, f.Guest.Resumed)
	}
	if err := client.Sync(t.Context()); err != nil || !f.Guest.Synced {
		t.Errorf("sync: %v", err)
	}
	if err := client.GrowDisk(t.Context(), 1<<40); err != nil || f.Guest.DiskBytes != 1<<40 {
		t.Errorf("grow: %v, the guest got %d", err, f.Guest.DiskBytes)
	}
	for _, ahead := range []time.Duration{-3 * time.Second, -time.Hour, time.Minute, 0} {
		f.Guest.Ahead = ahead
		before := time.Now()
		by, err := client.SyncClock(t.Context())
		took := time.Since(before)
		// Which is how far it may be wrong, and is allowed to be ahead.
		if err != nil || f.Guest.Ahead < 0 || f.Guest.Ahead > took+20*time.Millisecond || f.Guest.Ahead != ahead+by {
			t.Errorf("a clock that is %v ahead is so by %v after %v, %v", ahead, f.Guest.Ahead, took, err)
		}
	}
	forgot := false
	f.Guest.Forgets = func() { forgot = true }
	if err := client.Forget(t.Context()); err != nil || !forgot {
		t.Errorf("forget: %v", err)
	}
	f.Guest.Touched = make(chan map[string][]agent.Touch, 1)
	names := []agent.Touch{{Path: "."}, {Path: "dir/\xff\n", Other: true}}
	if err := client.Touch(t.Context(), "share0", time.Unix(1<<50, 5), names); err != nil {
		t.Errorf("touch: %v", err)
	} else if got := <-f.Guest.Touched; !slices.Equal(got["share0"], names) {
		t.Errorf("the guest touches %+v", got)
	}
	if err := client.Touch(t.Context(), "share0", time.Unix(0, 0), make([]agent.Touch, agent.MaxTouches+1)); err == nil {
		t.Error("any number of names is touched")
	}
	if err := client.PowerOff(t.Context()); err != nil || !f.Guest.PoweredOff {
		t.Errorf("power-off: %v", err)
	}
}

func TestControlWaitEndsWithItsContextAndLeavesTheRestAlone(t *testing.T) {
	f := newFixture(t)
	f.Guest.Ready = make(chan struct{})
	client := f.Client(t)
	ctx, cancel := contextWithReason(t)
	waited := make(chan error, 1)
	go func() {
		_, err := client.Wait(ctx, agent.StageAgent)
		waited <- err
	}()
	if _, err := client.Status(t.Context()); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-waited; !errors.Is(err, errReason) {
		t.Errorf("got %v, want %v", err, errReason)
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestControlTellsOfFailure(t *testing.T) {
	f := newFixture(t)
	f.Guest.Failure = errors.New("no such share")
	if _, err := f.Client(t).Wait(t.Context(), agent.StageAgent); err == nil {
		t.Error("a failed start was reported as reached")
	} else {
		contains(t, err.Error(), "no such share")
	}
}

func TestControlRefusesWhatItDoesNotUnderstand(t *testing.T) {
	f := newFixture(t)
	channel, requests, err := f.Client(t).SSH().OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(requests)
	if ok, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ S string }{wire.SubsystemControl})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	answers := json.NewDecoder(channel)
	for _, test := range []struct{ line, code string }{
		{`{"id":1,"method":"dance"}`, wire.CodeUnknownMethod},
		{`{"id":2,"method":"configure","params":"text"}`, wire.CodeBadRequest},
		{`{"id":3,"method":"wait"}`, wire.CodeBadRequest},
		{`{"id":4,"method":`, ""},
		{"garbage", wire.CodeBadRequest},
	} {
		if _, err := io.WriteString(channel, test.line+"\n"); err != nil {
			t.Fatal(err)
		}
		if test.code == "" {
			continue // an unfinished value: the next line spoils it
		}
		var answer wire.ControlResponse
		if err := answers.Decode(&answer); err != nil || answer.Error == nil || answer.Error.Code != test.code {
			t.Errorf("%s: %+v, %v", test.line, answer, err)
		}
	}
	if err := answers.Decode(new(wire.ControlResponse)); !errors.Is(err, io.EOF) {
		t.Errorf("after garbage: %v, want the end", err)
	}
}

func TestClientKnowsTheEndOfItsConnection(t *testing.T) {
	f := newFixture(t)
	ours, theirs := agenttest.Pipe(t)
	go f.Config.ServeConn(t.Context(), theirs)
	client, err := agent.Connect(t.Context(), ours, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	if client.Err() != nil {
		t.Errorf("an open connection has the error %v", client.Err())
	}
	theirs.Close()
	<-client.Done()
	if !errors.Is(client.Err(), agent.ErrGuestClosed) {
		t.Errorf("got %v, want %v", client.Err(), agent.ErrGuestClosed)
	}
	if _, err := client.Status(t.Context()); !errors.Is(err, agent.ErrGuestClosed) {
		t.Errorf("a request afterwards: %v", err)
	}
	if err := client.Command(t.Context(), "true").Start(); !errors.Is(err, agent.ErrGuestClosed) {
		t.Errorf("a command afterwards: %v", err)
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	ours, _ := agenttest.Pipe(t)
	ctx, cancel := contextWithReason(t)
	connected := make(chan error, 1)
	go func() {
		_, err := agent.Connect(ctx, ours, agenttest.NewKey(t))
		connected <- err
	}()
	cancel()
	if err := <-connected; !errors.Is(err, errReason) {
		t.Errorf("got %v, want %v", err, errReason)
	}
}

func TestServeAnswersAListener(t *testing.T) {
	f := newFixture(t)
	listener, err := net.Listen("unix", t.TempDir()+"/socket")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := contextWithReason(t)
	served := make(chan error, 1)
	go func() { served <- f.Config.Serve(ctx, listener) }()
	conn, err := net.Dial("unix", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client, err := agent.Connect(t.Context(), conn, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := client.Command(t.Context(), "echo", "hi").Output(); err != nil || string(out) != "hi\n" {
		t.Errorf("%q, %v", out, err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	<-client.Done()
}
