package supervisor

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/authority"
)

func TestTheAuthorityIsMadeWhenItIsNeededAndKept(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.Network, c.Allow = network.ModeAllowlist, []string{"api.example.com"}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	v := testSupervisor(s)
	v.config = c
	path := s.Files().Key(layout.AuthorityKey)
	r, err := v.openReader()
	if err != nil || r.authority != nil || v.certificates != nil {
		t.Errorf("without rules for requests: %+v, %v", r, err)
	}
	r.Close()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without rules for requests, there is a key: %v", err)
	}
	v.config.Allow = []string{"https://api.example.com/v1/**"}
	var first []byte
	for range 2 {
		v.certificates = []byte("of the host\n")
		r, err := v.openReader()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := authority.Parse(r.authority); err != nil || first != nil && !bytes.Equal(first, r.authority) {
			t.Errorf("the authority is another one at each start: %v", err)
		}
		first = r.authority
		if text := string(v.certificates); !strings.HasPrefix(text, "of the host\n-----BEGIN CERTIFICATE") || strings.Contains(text, "KEY") {
			t.Errorf("the guest is to believe %s", text)
		}
		r.Close()
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("the key is %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := v.openReader(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a damaged one: %v", err)
	}
}

func TestWhomThisMachineBelievesIsCopied(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "roots.crt")
	if err := os.WriteFile(path, []byte("roots"), 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := copyRoots([]string{filepath.Join(dir, "absent"), path}, []byte("more"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, 100)
	if n, _ := f.ReadAt(got, 0); string(got[:n]) != "roots\nmore" {
		t.Errorf("the copy has %q", got[:n])
	}
	if _, err := copyRoots([]string{filepath.Join(dir, "absent")}, nil); err == nil || !strings.Contains(err.Error(), "install") {
		t.Errorf("%v", err)
	}
}

func TestTheAuthorityIsMadeForSecrets(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.Network, c.Secrets = network.ModePublic, []string{"KEY@api.example.com"}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	v := testSupervisor(s)
	v.config = c
	r, err := v.openReader()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := authority.Parse(r.authority); err != nil || !strings.Contains(string(v.certificates), "BEGIN CERTIFICATE") {
		t.Errorf("the guest is to believe %q: %v", v.certificates, err)
	}
}

func TestTheFirstRuleForRequestsCountsAtOnce(t *testing.T) {
	l := started(t, func(c *machine.Config) { c.Network, c.Allow = network.ModeAllowlist, []string{"www.example.com"} })
	key := l.s.Files().Key(layout.AuthorityKey)
	if _, err := os.Stat(key); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("there is a key before anybody needs one: %v", err)
	}
	change := func(rule string) {
		t.Helper()
		if err := l.calls.ChangeRules(t.Context(), api.RuleChange{Allow: []string{rule}}); err != nil {
			t.Fatal(err)
		}
	}
	told := func() []byte {
		if l.guest.agent.Guest.Resumed == nil {
			return nil
		}
		return l.guest.agent.Guest.Resumed.Certificates
	}
	change("other.example.com")
	if told() != nil {
		t.Error("a rule for a host needs an authority")
	}
	if err := l.calls.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	change("https://api.example.com/v1/**")
	if told() != nil {
		t.Error("a guest that stands still is told something")
	}
	if err := l.calls.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	first := told()
	if text, err := os.ReadFile(key); err != nil || !bytes.Contains(text, first) || !bytes.Contains(first, []byte("BEGIN CERTIFICATE")) || bytes.Contains(first, []byte("KEY")) {
		t.Errorf("the guest is to believe %q: %v", first, err)
	}
	change("https://api.example.com/v2/**")
	if c, err := l.s.Config(); err != nil || !slices.Contains(c.Allowed, "https://api.example.com/v1/**") || !slices.Contains(c.Allowed, "https://api.example.com/v2/**") {
		t.Errorf("the rules are kept as %q: %v", c.Allowed, err)
	}
}

func TestTheGuestIsToldOfTheAuthorityWhileItRuns(t *testing.T) {
	l := started(t, func(c *machine.Config) { c.Network = network.ModeAllowlist })
	if err := l.calls.ChangeRules(t.Context(), api.RuleChange{Allow: []string{"https://api.example.com/v1/**"}}); err != nil {
		t.Fatal(err)
	}
	if told := l.guest.agent.Guest.Resumed; told == nil || !bytes.Contains(told.Certificates, []byte("BEGIN CERTIFICATE")) || told.Restored {
		t.Errorf("the guest is told %+v", told)
	}
}
