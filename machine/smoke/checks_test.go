package smoke

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/agenttest"
	"github.com/sourcery-zone/sandbox/agent/server"
	"github.com/sourcery-zone/sandbox/image"
)

// newGuest is a guest whose commands run on this machine, by the real agent.
func newGuest(t *testing.T) (*guest, *agenttest.Guest) {
	t.Helper()
	s := agenttest.NewServer(t)
	open := *s.Config
	open.Controller, open.Crypto = nil, ssh.Config{}
	return &guest{
		client: s.Client(t), user: image.User{Name: "agent", UID: os.Getuid(), Home: s.Home}, home: s.Home,
		ssh: serve(t, &open), sshKey: s.Key, sshHost: open.HostKey.PublicKey(),
	}, s.Guest
}

func serve(t *testing.T, s *server.Server) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l.Addr().String()
}

// check runs a built-in check.
func check(t *testing.T, name string, g *guest) Result {
	t.Helper()
	for _, c := range builtin() {
		if c.Name == name {
			return c.do(t.Context(), g, time.Minute)
		}
	}
	t.Fatalf("there is no check %s", name)
	return Result{}
}

func TestChecksPassOnAGuestThatWorks(t *testing.T) {
	g, service := newGuest(t)
	g.share = t.TempDir()
	g.shareInside = g.share
	service.State.Network = agent.Network{Up: true, Interface: "eth0", Address: "10.0.2.15/24"}
	for _, name := range []string{"agent", "clock", "entropy", "home", "share", "dhcp", "ssh"} {
		if r := check(t, name, g); r.Outcome != Passed {
			t.Errorf("%+v", r)
		}
	}
}

func TestChecksFindWhatIsWrong(t *testing.T) {
	other, err := newSSHKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		check, message string
		harm           func(*guest, *agenttest.Guest)
	}{
		"commands of another user":  {"agent", "commands run with uid", func(g *guest, _ *agenttest.Guest) { g.user.UID++ }},
		"a home that is not shared": {"home", "is not on the host", func(g *guest, _ *agenttest.Guest) { g.home = t.TempDir() }},
		"a share that is not there": {"share", "the guest cannot write to", func(g *guest, _ *agenttest.Guest) { g.shareInside = "/nowhere" }},
		"a lease that never came":   {"dhcp", "no answer from the DHCP server", func(_ *guest, s *agenttest.Guest) { s.State.Network.Problem = "no answer from the DHCP server" }},
		"a lease that is to come":   {"dhcp", "it waits", func(*guest, *agenttest.Guest) {}},
		"another machine's ssh":     {"ssh", "host key mismatch", func(g *guest, _ *agenttest.Guest) { g.sshHost = other.PublicKey() }},
		"ssh that knows no key":     {"ssh", "unable to authenticate", func(g *guest, _ *agenttest.Guest) { g.sshKey = other }},
	} {
		t.Run(name, func(t *testing.T) {
			g, service := newGuest(t)
			test.harm(g, service)
			if r := check(t, test.check, g); r.Outcome != Failed || !strings.Contains(r.Message, test.message) {
				t.Errorf("got %+v, want %q", r, test.message)
			}
		})
	}
}

func TestChecksWriteThroughNoLinkOfTheGuest(t *testing.T) {
	g, _ := newGuest(t)
	mine := filepath.Join(t.TempDir(), "mine")
	if err := os.WriteFile(mine, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(mine, filepath.Join(g.home, ".smoke-from-host")); err != nil {
		t.Fatal(err)
	}
	_ = check(t, "home", g)
	if text, err := os.ReadFile(mine); string(text) != "mine" {
		t.Errorf("a file of the host has %q, %v", text, err)
	}
}

func TestUnitsAreSkippedWithoutSystemd(t *testing.T) {
	if r := check(t, "units", &guest{}); r.Outcome != Skipped || r.Message == "" {
		t.Errorf("%+v", r)
	}
}

func TestClocks(t *testing.T) {
	before := time.Unix(1000, 900e6)
	after := before.Add(time.Second)
	for second, want := range map[int64]string{
		1000: "", 1001: "", 996: "", 1006: "",
		990: "behind", 1010: "ahead",
	} {
		err := compareClocks(time.Unix(second, 0), before, after)
		if (want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), want)) {
			t.Errorf("%d: got %v, want %q", second, err, want)
		}
	}
}

func TestOwnChecks(t *testing.T) {
	g, _ := newGuest(t)
	for spec, want := range map[string]Result{
		"good=echo out; echo err >&2":                {Name: "good", Outcome: Passed, Output: "out\nerr\n"},
		"bad=echo no; exit 3":                        {Name: "bad", Outcome: Failed, Output: "no\n", Message: "the command ended with exit status 3"},
		"equal=test a = a":                           {Name: "equal", Outcome: Passed},
		"long=head -c 200000 /dev/zero | tr '\\0' x": {Name: "long", Outcome: Passed, Output: strings.Repeat("x", maxOutput)},
	} {
		c, err := ParseCheck(spec)
		if err != nil {
			t.Fatal(err)
		}
		got := c.do(t.Context(), g, time.Minute)
		got.Seconds = 0
		if got != want {
			t.Errorf("%s: got %.300v", spec, got)
		}
	}
}

func TestACheckThatTakesTooLongIsEnded(t *testing.T) {
	g, _ := newGuest(t)
	c, err := ParseCheck("slow=exec tail -f /dev/null")
	if err != nil {
		t.Fatal(err)
	}
	if r := c.do(t.Context(), g, time.Millisecond); r.Outcome != Failed || !strings.Contains(r.Message, "longer than 1ms (--timeout)") {
		t.Errorf("%+v", r)
	}
}

func TestBadChecksAreRefused(t *testing.T) {
	for _, spec := range []string{"", "git", "=true", "a b=true", "../a=true", "git=", "git= "} {
		if _, err := ParseCheck(spec); err == nil || !strings.Contains(err.Error(), "NAME=COMMAND") {
			t.Errorf("%q: %v", spec, err)
		}
	}
	one, err := ParseCheck("one=true")
	if err != nil {
		t.Fatal(err)
	}
	clock, err := ParseCheck("clock=true")
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Checks: []Check{one, one, clock}, Repeat: 0, Jobs: 0}
	for _, want := range []string{"named one", "named clock", "--repeat", "--jobs", "--timeout"} {
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %v", want, err)
		}
	}
}

func TestExecutablesOfADirectoryAreChecks(t *testing.T) {
	g, _ := newGuest(t)
	g.checks = t.TempDir()
	write := func(name, text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(g.checks, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	write("data.txt", "beside it\n", 0o644)
	if _, err := FindChecks(g.checks); err == nil || !strings.Contains(err.Error(), "chmod +x") {
		t.Errorf("without an executable: %v", err)
	}
	write("20-bad", "#!/bin/sh\nexit 4\n", 0o755)
	write("10-good", "#!/bin/sh\ncat \"$(dirname \"$0\")/data.txt\"\n", 0o755)
	checks, err := FindChecks(g.checks)
	if err != nil {
		t.Fatal(err)
	}
	var got []Outcome
	for _, c := range checks {
		r := c.do(t.Context(), g, time.Minute)
		if r.Name == "10-good" && r.Output != "beside it\n" {
			t.Errorf("%+v", r)
		}
		got = append(got, r.Outcome)
	}
	if len(got) != 2 || got[0] != Passed || got[1] != Failed {
		t.Errorf("got %v of %v", got, checks)
	}
	write("a b", "", 0o755)
	if _, err := FindChecks(g.checks); err == nil || !strings.Contains(err.Error(), `"a b"`) {
		t.Errorf("a bad name: %v", err)
	}
	if _, err := FindChecks(filepath.Join(g.checks, "none")); err == nil {
		t.Error("a directory that is not there was read")
	}
}
