package stack

import (
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
)

func TestGuestReachesThePublicInternet(t *testing.T) {
	l := newLab(t)
	a := l.listen(80, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	c := l.mustConnect(a)
	sent := make([]byte, 3<<20)
	_, _ = rand.Read(sent)
	go func() {
		_, _ = c.Write(sent)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes came back of %d, and: %v", len(got), len(sent), err)
	}
	c.Close()
	e := l.event(func(e Event) bool { return e.Proto == "tcp" })
	if e.Addr != a || e.Sent != int64(len(sent)) || e.Received != int64(len(sent)) || !e.Allowed || e.Rule != policy.RulePublic {
		t.Errorf("the connection is logged as %+v", e)
	}
}

func TestClosedAddressesAreRefusedAndNotDialled(t *testing.T) {
	l := newLab(t)
	for addr, want := range map[string]struct{ rule, err string }{
		"93.0.0.1":        {policy.RuleHost, "no route to host"},
		"192.168.1.1":     {policy.RulePrivate, "no route to host"},
		"172.16.0.1":      {policy.RulePrivate, "no route to host"},
		"10.1.2.3":        {policy.RulePrivate, "no route to host"},
		"100.64.0.1":      {policy.RuleShared, "no route to host"},
		"169.254.169.254": {policy.RuleMetadata, "no route to host"},
		"169.254.1.1":     {policy.RuleLinkLocal, "no route to host"},
		"0.1.2.3":         {policy.RuleUnspecified, "no route to host"},
		"198.18.0.1":      {policy.RuleReserved, "no route to host"},
		"240.0.0.1":       {policy.RuleReserved, "no route to host"},
		"10.0.2.2":        {RuleGateway, "connection was refused"},
		"10.0.2.3":        {RuleGateway, "connection was refused"},
	} {
		a := netip.AddrPortFrom(netip.MustParseAddr(addr), 22)
		_, err := l.connect(a)
		if err == nil || !strings.Contains(err.Error(), want.err) {
			t.Errorf("%s: %v, want %s", addr, err, want.err)
		}
		e := l.event(func(e Event) bool { return e.Addr == a })
		if e.Allowed || e.Rule != want.rule {
			t.Errorf("%s is logged as %+v, want the rule %s", addr, e, want.rule)
		}
	}
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
}

func TestAClosedPortOfAnOpenAddressIsAReset(t *testing.T) {
	l := newLab(t)
	_, err := l.connect(netip.AddrPortFrom(public, 81))
	if err == nil || !strings.Contains(err.Error(), "connection was refused") {
		t.Errorf("it is %v", err)
	}
}

func TestHalfClosedConnectionsGoOnInTheOtherDirection(t *testing.T) {
	l := newLab(t)
	a := l.listen(80, func(c *net.TCPConn) {
		defer c.Close()
		request, _ := io.ReadAll(c) // until the guest has nothing more to say
		_, _ = c.Write(append([]byte("got "), request...))
	})
	c := l.mustConnect(a)
	_, _ = c.Write([]byte("it"))
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(c); string(answer) != "got it" || err != nil {
		t.Errorf("the answer is %q, %v", answer, err)
	}

	// And the other way around.
	said := make(chan string, 1)
	b := l.listen(81, func(c *net.TCPConn) {
		defer c.Close()
		_ = c.CloseWrite()
		rest, _ := io.ReadAll(c)
		said <- string(rest)
	})
	c = l.mustConnect(b)
	if got, err := io.ReadAll(c); len(got) != 0 || err != nil {
		t.Errorf("the guest reads %q, %v", got, err)
	}
	_, _ = c.Write([]byte("still here"))
	c.Close()
	if got := <-said; got != "still here" {
		t.Errorf("the host got %q", got)
	}
}

func TestResetsPassThrough(t *testing.T) {
	l := newLab(t)
	a := l.listen(80, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
		c.Close()
	})
	c := l.mustConnect(a)
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the guest reads %v", err)
	}

	failed := make(chan error, 1)
	b := l.listen(81, func(c *net.TCPConn) {
		defer c.Close()
		_, err := io.ReadAll(c)
		failed <- err
	})
	c = l.mustConnect(b)
	_, _ = c.Write([]byte("x"))
	l.abortGuest()
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("the host reads %v", err)
	}
}

// abortGuest resets all connections of the guest's.
func (l *lab) abortGuest() {
	for _, e := range l.guest.RegisteredEndpoints() {
		e.Abort()
	}
}

func TestConnectionsBeyondTheLimitAreReset(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Connections = 3 })
	a := l.listen(80, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	var open []net.Conn
	for range 3 {
		open = append(open, l.mustConnect(a))
	}
	if _, err := l.connect(a); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("the fourth: %v", err)
	}
	if e := l.event(func(e Event) bool { return e.Rule == RuleLimit }); e.Allowed || e.Addr != a {
		t.Errorf("it is logged as %+v", e)
	}
	open[0].Close()
	l.event(func(e Event) bool { return e.Allowed })
	// The place is free with the event, or in a moment.
	for deadline := time.Now().Add(patience); ; {
		if _, err := l.connect(a); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("the place of a connection that ended stays taken: %v", err)
		}
	}
}
