package stack

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// questions are what a network asks.
type questions chan Question

// asking makes a network whose user is asked.
func asks() (questions, option) {
	q := make(questions, 4096)
	return q, func(c *Config) { c.Ask = func(asked Question) { q <- asked } }
}

// next waits for what is told next.
func (q questions) next(t testing.TB) Question {
	t.Helper()
	select {
	case asked := <-q:
		return asked
	case <-time.After(patience):
		t.Fatal("nobody is asked")
	}
	return Question{}
}

// setRules replaces the rules of an allowlist.
func (l *lab) setRules(allow, deny []string) {
	l.t.Helper()
	var c Config
	opens, err := parse(allow, policy.ParseRule)
	if err != nil {
		l.t.Fatal(err)
	}
	closes, err := parse(deny, policy.ParseDeny)
	if err != nil {
		l.t.Fatal(err)
	}
	before := l.network.rules.Load()
	if before.allow != nil {
		c.Allow = &policy.Allowlist{Public: before.public, Rules: opens, Deny: closes}
	} else {
		c.Policy = &policy.Policy{Host: before.public.Host, Allow: opens, Deny: closes}
	}
	if err := l.network.SetRules(c); err != nil {
		l.t.Fatal(err)
	}
}

// connecting connects the guest in the background.
func (l *lab) connecting(a netip.AddrPort) <-chan error {
	done := make(chan error, 1)
	go func() {
		c, err := l.connect(a)
		if err == nil {
			defer c.Close()
			_, err = io.ReadAll(c)
		}
		done <- err
	}()
	return done
}

func (l *lab) isRefused(err error) {
	l.t.Helper()
	if err == nil || !strings.Contains(err.Error(), "no route to host") {
		l.t.Errorf("the guest is told: %v", err)
	}
}

func TestWhatNoRuleOpensWaitsForTheUser(t *testing.T) {
	asked, ask := asks()
	l := newLab(t, allow(t), ask, resolver(zone{"api.example": {"93.184.215.14"}}))
	for _, port := range []uint16{443, 22} {
		l.listen(port, func(c *net.TCPConn) { c.Close() })
	}
	a := netip.AddrPortFrom(l.address("api.example"), 443)

	// Once is for those who wait, and for them only.
	first := l.connecting(a)
	q := asked.next(t)
	if q.Host != "api.example" || q.Port != 443 || q.Rule != "api.example" || q.Answer != "" || q.ID == "" {
		t.Errorf("the question is %+v", q)
	}
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v before the answer", dialed)
	}
	if err := l.network.AllowOnce("forged"); err == nil {
		t.Error("a question that nobody has asked is answered")
	}
	if err := l.network.AllowOnce(q.ID); err != nil {
		t.Fatal(err)
	}
	if end := asked.next(t); end.ID != q.ID || end.Answer != AnswerOnce {
		t.Errorf("the question ends as %+v", end)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
	if e := l.event(func(e Event) bool { return e.Proto == "tcp" }); !e.Allowed || e.Rule != RuleOnce {
		t.Errorf("it is logged as %+v", e)
	}
	if err := l.network.AllowOnce(q.ID); err == nil {
		t.Error("a question is answered twice")
	}

	// A rule answers for good.
	third := l.connecting(a)
	if again := asked.next(t); again.ID == q.ID || again.Host != q.Host {
		t.Errorf("the next question is %+v", again)
	}
	l.setRules([]string{"api.example"}, nil)
	if end := asked.next(t); end.Answer != AnswerSandbox {
		t.Errorf("the question ends as %+v", end)
	}
	if err := errors.Join(<-third, <-l.connecting(a)); err != nil {
		t.Error(err)
	}

	// Never is a rule, too.
	b := netip.AddrPortFrom(a.Addr(), 22)
	fourth := l.connecting(b)
	if q := asked.next(t); q.Rule != "api.example:22" {
		t.Errorf("the question is %+v", q)
	}
	l.setRules([]string{"api.example"}, []string{"api.example:22"})
	if end := asked.next(t); end.Answer != AnswerNever {
		t.Errorf("the question ends as %+v", end)
	}
	l.isRefused(<-fourth)
	l.isRefused(<-l.connecting(b))
	if e := l.event(func(e Event) bool { return e.Addr == b }); e.Allowed || e.Rule != "deny api.example:22" {
		t.Errorf("it is logged as %+v", e)
	}
	if len(asked) > 0 {
		t.Errorf("the user is asked again: %+v", <-asked)
	}
}

func TestAddressesAreAskedFor(t *testing.T) {
	asked, ask := asks()
	l := newLab(t, allow(t), ask)
	// The host itself, what is no host, UDP, and what an open name leads to are refused at once.
	for _, a := range []string{"93.0.0.1:22", "127.0.0.1:22", "198.18.7.7:443", "0.0.0.0:1", "10.0.2.2:22"} {
		if _, err := l.connect(netip.MustParseAddrPort(a)); err == nil {
			t.Errorf("the guest reaches %s", a)
		}
	}
	if len(asked) > 0 {
		t.Errorf("the user is asked for %+v", <-asked)
	}
	// An address of the LAN may be opened.
	db := netip.MustParseAddrPort("10.1.2.3:5432")
	listener := l.listen(5432, func(c *net.TCPConn) { c.Close() })
	l.mu.Lock()
	l.services[db] = l.services[listener]
	l.mu.Unlock()
	done := l.connecting(db)
	q := asked.next(t)
	if q.Host != "10.1.2.3" || q.Rule != "10.1.2.3:5432" {
		t.Errorf("the question is %+v", q)
	}
	if err := l.network.AllowOnce(q.ID); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestANameThatIsOpenedOnceLeadsToNoClosedAddress(t *testing.T) {
	asked, ask := asks()
	l := newLab(t, allow(t), ask, resolver(zone{"rebind.example": {"127.0.0.1", "10.0.0.1"}}))
	done := l.connecting(netip.AddrPortFrom(l.address("rebind.example"), 443))
	if err := l.network.AllowOnce(asked.next(t).ID); err != nil {
		t.Fatal(err)
	}
	l.isRefused(<-done)
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	const names = 2000
	asked, ask := asks()
	l := newBareLab(t, blackHole, allow(t), ask, func(c *Config) { c.Log = nil })
	l.barrier()
	answers := l.drainSocket()
	check := watch(t, 64<<20)
	from := func(i int) netip.AddrPort { return netip.AddrPortFrom(Guest, uint16(1024+i)) }
	for i := range names {
		addr, ok := l.network.table.address(string(rune('a'+i%26)) + strings.Repeat("x", i/26%50) + "." + string(rune('a'+i/1300)) + ".example")
		if !ok {
			t.Fatal("there is no address")
		}
		l.sendIP(tcpSegment(from(i), netip.AddrPortFrom(addr, 443), header.TCPFlagSyn))
	}
	check("after SYNs to names")
	if counts := answers(); counts[prohibited] == 0 {
		t.Errorf("what is not asked for is not refused: %v", counts)
	}
	if len(asked) != MaxQuestions {
		t.Errorf("%d questions are asked", len(asked))
	}
}

func TestAQuestionThatNobodyAnswersEnds(t *testing.T) {
	var mu sync.Mutex
	var told []Question
	a := netip.MustParseAddrPort("93.184.215.14:443")
	rule, err := policy.ParseRule("93.184.215.14")
	if err != nil {
		t.Fatal(err)
	}
	judging := &rules{public: &policy.Policy{}, allow: &policy.Allowlist{Public: &policy.Policy{}}}
	o := asked{open: map[string]*asking{}, tell: func(q Question) {
		mu.Lock()
		defer mu.Unlock()
		told = append(told, q)
	}}
	q, _ := o.question(func() *rules { return judging }, "", a, rule, "")
	if joined, _ := o.question(func() *rules { return judging }, "", a, rule, ""); joined != q {
		t.Errorf("who wants the same is asked for as %+v", joined)
	}
	q.late.Reset(0) // the time is up
	<-q.ended
	if q.verdict.Allow || q.verdict.Rule != RuleNotAnswered || q.once {
		t.Errorf("it ends with %+v", q.verdict)
	}
	mu.Lock()
	defer mu.Unlock()
	if answers := []string{told[0].Answer, told[1].Answer}; !slices.Equal(answers, []string{"", AnswerNone}) || len(o.open) > 0 {
		t.Errorf("it is told %q", answers)
	}
}

func TestRulesEndWhatTheyClose(t *testing.T) {
	l := newLab(t, allow(t, "api.example:*", "other.example:*", "93.184.215.14:22"), resolver(zone{"api.example": {"93.184.215.14"}, "other.example": {"93.184.215.14"}}))
	host := make(chan error, 3)
	for _, port := range []uint16{22, 8443} {
		l.listen(port, func(c *net.TCPConn) {
			_, _ = c.Write([]byte("download"))
			_, err := io.Copy(io.Discard, c)
			host <- err
		})
	}
	name := l.mustConnect(netip.AddrPortFrom(l.address("api.example"), 8443))
	other := l.mustConnect(netip.AddrPortFrom(l.address("other.example"), 8443))
	addr := l.mustConnect(netip.MustParseAddrPort("93.184.215.14:22"))
	b := make([]byte, len("download"))
	for _, c := range []io.Reader{name, other, addr} {
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
	}
	ended := func(c io.Reader, who, rule string) {
		t.Helper()
		if _, err := c.Read(b); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: the guest's connection ends with: %v", who, err)
		}
		if err := <-host; err == nil {
			t.Errorf("%s: the host's connection ends in order", who)
		}
		if e := l.event(func(e Event) bool { return e.Rule == rule }); e.Allowed || e.Received != int64(len("download")) {
			t.Errorf("%s: it is logged as %+v", who, e)
		}
	}
	same := []string{"api.example:*", "other.example:*", "93.184.215.14:22"}
	l.setRules(same, []string{"api.example"})
	ended(name, "a name that is denied", "deny api.example")
	l.isRefused(<-l.connecting(netip.AddrPortFrom(l.address("api.example"), 8443)))
	l.setRules(same[:2], nil)
	ended(addr, "an address whose rule is gone", policy.RuleNotAllowed)
	l.setRules(same[:2], []string{"93.184.0.0/16:8443"})
	ended(other, "a name that leads to an address that is denied", "deny 93.184.0.0/16:8443")
}

func TestRulesOfThePublicNetwork(t *testing.T) {
	l := newLab(t, resolver(zone{"db.example": {"10.1.2.3"}, "lan.example": {"192.168.1.1"}}))
	a := l.listen(5432, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	db := netip.MustParseAddrPort("10.1.2.3:5432")
	l.mu.Lock()
	l.services[db] = l.services[a]
	l.mu.Unlock()
	if _, err := l.connect(db); err == nil {
		t.Fatal("a private address is open")
	}
	l.setRules([]string{"10.1.0.0/16:5432"}, nil)
	c := l.mustConnect(db)
	if got := l.address("db.example"); got != db.Addr() {
		t.Errorf("the name of an open address leads to %s", got)
	}
	if m := l.ask("lan.example", 1, 1232); len(m.Answers) > 0 {
		t.Errorf("the name of a closed address leads to %v", texts(m))
	}
	for _, closed := range []string{"10.1.2.3:22", "10.2.0.1:5432", "93.0.0.1:5432", "127.0.0.1:5432"} {
		if _, err := l.connect(netip.MustParseAddrPort(closed)); err == nil {
			t.Errorf("%s is open", closed)
		}
	}
	public := l.mustConnect(a)
	l.setRules([]string{"10.1.0.0/16:5432"}, []string{"93.184.215.0/24"})
	if _, err := public.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a connection to what is denied now: %v", err)
	}
	l.setRules(nil, nil)
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a connection to what is not open any more: %v", err)
	}
	if e := l.event(func(e Event) bool { return e.Rule == "deny 93.184.215.0/24" }); e.Allowed {
		t.Errorf("it is logged as %+v", e)
	}
}
