package stack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// names of a test, with their addresses.
type zone map[string][]string

func (z zone) LookupNetIP(_ context.Context, network, host string) (addrs []netip.Addr, err error) {
	if network != "ip" || !strings.HasSuffix(host, ".") {
		return nil, fmt.Errorf("%s of %s was asked for", network, host)
	}
	for _, a := range z[strings.ToLower(strings.TrimSuffix(host, "."))] {
		if a == "fail" {
			return nil, &net.DNSError{Err: "server misbehaving", Name: host, IsTemporary: true}
		}
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	if len(addrs) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return addrs, nil
}

// listenBoth opens a port that is free for UDP and for TCP.
func listenBoth(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for {
		packets, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("tcp", packets.LocalAddr().String())
		if err == nil {
			return packets, l
		}
		packets.Close()
		if !errors.Is(err, unix.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// dnsServer is a DNS server of the host's, at which each question gets what answer says.
func dnsServer(t testing.TB, answer func(q dnsmessage.Message, network string) *dnsmessage.Message) option {
	t.Helper()
	packets, l := listenBoth(t)
	at := packets.LocalAddr().(*net.UDPAddr).AddrPort()
	reply := func(b []byte, network string) []byte {
		var q dnsmessage.Message
		if err := q.Unpack(b); err != nil {
			return nil
		}
		m := answer(q, network)
		if m == nil {
			return nil
		}
		m.ID, m.Response, m.Questions = q.ID, true, q.Questions
		out, err := m.Pack()
		if err != nil {
			t.Error(err)
		}
		return out
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 65536)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			if a := reply(b[:n], "udp"); a != nil {
				_, _ = packets.WriteTo(a, from)
			}
		}
	})
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			_, _ = io.ReadFull(c, size[:])
			b := make([]byte, binary.BigEndian.Uint16(size[:]))
			_, _ = io.ReadFull(c, b)
			a := reply(b, "tcp")
			_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(a))), a...))
			c.Close()
		}
	})
	t.Cleanup(func() {
		packets.Close()
		l.Close()
		wg.Wait()
	})
	return func(c *Config) {
		c.Servers = func() ([]netip.AddrPort, error) { return []netip.AddrPort{at}, nil }
	}
}

func query(name string, kind dnsmessage.Type, edns int) []byte {
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 4711, RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name + "."), Type: kind, Class: dnsmessage.ClassINET}},
	}
	if edns > 0 {
		var h dnsmessage.ResourceHeader
		_ = h.SetEDNS0(edns, 0, false)
		m.Additionals = []dnsmessage.Resource{{Header: h, Body: &dnsmessage.OPTResource{}}}
	}
	b, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return b
}

func (l *lab) dnsConn() net.Conn {
	l.t.Helper()
	c, err := gonet.DialUDP(l.guest, nil, &tcpip.FullAddress{NIC: nic, Addr: tcpipAddress(DNS), Port: 53}, ipv4.ProtocolNumber)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { c.Close() })
	return c
}

func unpack(t testing.TB, b []byte) *dnsmessage.Message {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(b); err != nil {
		t.Fatalf("the answer is no message: %v", err)
	}
	if m.ID != 4711 || !m.Response {
		t.Errorf("the answer's header is %+v", m.Header)
	}
	return &m
}

func (l *lab) ask(name string, kind dnsmessage.Type, edns int) *dnsmessage.Message {
	l.t.Helper()
	c := l.dnsConn()
	if _, err := c.Write(query(name, kind, edns)); err != nil {
		l.t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 65536)
	n, err := c.Read(b)
	if err != nil {
		l.t.Fatalf("no answer to a question for %s: %v", name, err)
	}
	return unpack(l.t, b[:n])
}

func (l *lab) askOverTCP(name string, kind dnsmessage.Type) *dnsmessage.Message {
	l.t.Helper()
	c := l.mustConnect(netip.AddrPortFrom(DNS, 53))
	q := query(name, kind, 0)
	_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(q))), q...))
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		l.t.Fatal(err)
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	if _, err := io.ReadFull(c, b); err != nil {
		l.t.Fatal(err)
	}
	return unpack(l.t, b)
}

// texts are the answers of a message.
func texts(m *dnsmessage.Message) (list []string) {
	for _, r := range m.Answers {
		switch b := r.Body.(type) {
		case *dnsmessage.AResource:
			list = append(list, netip.AddrFrom4(b.A).String())
		case *dnsmessage.AAAAResource:
			list = append(list, netip.AddrFrom16(b.AAAA).String())
		case *dnsmessage.TXTResource:
			list = append(list, b.TXT...)
		case *dnsmessage.MXResource:
			list = append(list, b.MX.String())
		case *dnsmessage.PTRResource:
			list = append(list, b.PTR.String())
		default:
			list = append(list, r.Header.Type.String())
		}
	}
	return list
}

// extendedError is the code of RFC 8914, or -1.
func extendedError(m *dnsmessage.Message) int {
	for _, r := range m.Additionals {
		if o, ok := r.Body.(*dnsmessage.OPTResource); ok {
			for _, option := range o.Options {
				if option.Code == 15 {
					return int(binary.BigEndian.Uint16(option.Data))
				}
			}
		}
	}
	return -1
}

func TestLookups(t *testing.T) {
	nothing := dnsServer(t, func(q dnsmessage.Message, _ string) *dnsmessage.Message {
		m := &dnsmessage.Message{}
		if strings.HasPrefix(q.Questions[0].Name.String(), "missing") {
			m.RCode = dnsmessage.RCodeNameError
		}
		return m
	})
	l := newLab(t, nothing, func(c *Config) {
		c.Resolver = zone{
			"example.com":  {"93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"},
			"v4.test":      {"93.184.215.15"},
			"v6.test":      {"2606:2800::1"},
			"rebind.test":  {"127.0.0.1", "::1"},
			"metadata":     {"169.254.169.254"},
			"mixed.test":   {"10.0.0.1", "93.184.215.16", "::ffff:192.168.1.1"},
			"host.test":    {"93.0.0.1"},
			"nat64.test":   {"64:ff9b::7f00:1"},
			"localhost":    {"127.0.0.1", "::1"},
			"broken.test":  {"fail"},
			"half.test":    {"93.184.215.17", "fd00::1"},
			"gateway.test": {"10.0.2.2"},
		}
	})
	for _, c := range []struct {
		name    string
		kind    dnsmessage.Type
		rcode   dnsmessage.RCode
		answers []string
		blocked bool
	}{
		{"example.com", dnsmessage.TypeA, 0, []string{"93.184.215.14"}, false},
		{"EXAMPLE.com", dnsmessage.TypeAAAA, 0, []string{"2606:2800:21f:cb07:6820:80da:af6b:8b2c"}, false},
		{"v4.test", dnsmessage.TypeAAAA, 0, nil, false},
		{"v6.test", dnsmessage.TypeA, 0, nil, false},
		{"rebind.test", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, true},
		{"rebind.test", dnsmessage.TypeAAAA, dnsmessage.RCodeNameError, nil, true},
		{"metadata", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, true},
		{"mixed.test", dnsmessage.TypeA, 0, []string{"93.184.215.16"}, false},
		{"host.test", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, true},
		{"nat64.test", dnsmessage.TypeAAAA, dnsmessage.RCodeNameError, nil, true},
		{"localhost", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, true},
		{"gateway.test", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, true},
		{"half.test", dnsmessage.TypeAAAA, 0, nil, false},
		{"broken.test", dnsmessage.TypeA, dnsmessage.RCodeServerFailure, nil, false},
		{"missing.test", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, false},
		{"only-mx.test", dnsmessage.TypeA, 0, nil, false},
		{"host.sandbox.internal", dnsmessage.TypeA, dnsmessage.RCodeNameError, nil, false},
		{"example.com", typeHTTPS, 0, nil, false},
		{"example.com", typeSVCB, 0, nil, false},
		{"example.com", dnsmessage.TypeALL, dnsmessage.RCodeNotImplemented, nil, false},
		{"example.com", dnsmessage.TypeAXFR, dnsmessage.RCodeNotImplemented, nil, false},
		{"1.1.168.192.in-addr.arpa", dnsmessage.TypePTR, dnsmessage.RCodeNameError, nil, true},
		{"10.in-addr.arpa", dnsmessage.TypePTR, dnsmessage.RCodeNameError, nil, true},
		{"1.0-127.1.168.192.in-addr.arpa", dnsmessage.TypePTR, dnsmessage.RCodeNameError, nil, true},
		{"b._dns-sd._udp.0.1.168.192.in-addr.arpa", dnsmessage.TypePTR, dnsmessage.RCodeNameError, nil, true},
		{"lb._dns-sd._udp.0.0.d.f.ip6.arpa", dnsmessage.TypePTR, dnsmessage.RCodeNameError, nil, true},
		{"8.8.8.8.in-addr.arpa", dnsmessage.TypePTR, 0, nil, false},
		{"_http._tcp.example.com", dnsmessage.TypePTR, 0, nil, false},
	} {
		for _, over := range []string{"udp", "tcp"} {
			m := func() *dnsmessage.Message {
				if over == "tcp" {
					return l.askOverTCP(c.name, c.kind)
				}
				return l.ask(c.name, c.kind, 1232)
			}()
			got := texts(m)
			if m.RCode != c.rcode || !slices.Equal(got, c.answers) {
				t.Errorf("%s %s over %s: %s %v, want %s %v", c.name, c.kind, over, m.RCode, got, c.rcode, c.answers)
			}
			if code := extendedError(m); over == "udp" && (code == 15) != c.blocked {
				t.Errorf("%s %s: the extended error is %d", c.name, c.kind, code)
			}
		}
	}
	if e := l.event(func(e Event) bool { return e.Name == "rebind.test" }); e.Allowed || e.Rule != policy.RuleLoopback {
		t.Errorf("the name of a loopback address is logged as %+v", e)
	}
	// A connection to an answer's address is logged with the name.
	_, _ = l.connect(netip.MustParseAddrPort("93.184.215.14:80"))
	if e := l.event(func(e Event) bool { return e.Proto == "tcp" }); e.Name != "example.com" {
		t.Errorf("the connection is logged as %+v", e)
	}
}

func TestOtherRecordsComeFromTheHostsServers(t *testing.T) {
	header := func(kind dnsmessage.Type, name string) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(name), Type: kind, Class: dnsmessage.ClassINET, TTL: 7}
	}
	a := func(name string, a ...byte) dnsmessage.Resource {
		return dnsmessage.Resource{Header: header(dnsmessage.TypeA, name), Body: &dnsmessage.AResource{A: [4]byte(a)}}
	}
	l := newLab(t, dnsServer(t, func(q dnsmessage.Message, network string) *dnsmessage.Message {
		m := &dnsmessage.Message{}
		switch name := q.Questions[0].Name.String(); name {
		case "long.test.":
			if network == "udp" {
				m.Truncated = true
				return m
			}
			m.Answers = []dnsmessage.Resource{{Header: header(dnsmessage.TypeTXT, name), Body: &dnsmessage.TXTResource{TXT: slices.Repeat([]string{strings.Repeat("x", 250)}, 20)}}}
		case "mail.test.":
			m.Answers = []dnsmessage.Resource{
				{Header: header(dnsmessage.TypeMX, name), Body: &dnsmessage.MXResource{Pref: 1, MX: dnsmessage.MustNewName("mx.test.")}},
				a(name, 10, 0, 0, 1), a(name, 93, 184, 215, 14),
				{Header: header(typeHTTPS, name), Body: &dnsmessage.UnknownResource{Type: typeHTTPS, Data: []byte{0, 1, 0}}},
			}
			m.Authorities = []dnsmessage.Resource{a("ns.test.", 192, 168, 0, 1)}
			m.Additionals = []dnsmessage.Resource{a("mx.test.", 192, 168, 0, 1)}
		case "alias.test.": // which its owner has lead to the names of a network
			private, public := "1.1.168.192.in-addr.arpa.", "8.8.8.8.in-addr.arpa."
			m.Answers = []dnsmessage.Resource{
				{Header: header(dnsmessage.TypePTR, private), Body: &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName("printer.lan.")}},
				{Header: header(dnsmessage.TypePTR, public), Body: &dnsmessage.PTRResource{PTR: dnsmessage.MustNewName("dns.google.")}},
			}
		case "refused.test.":
			m.RCode = dnsmessage.RCodeRefused
		case "silent.test.":
			return nil
		}
		return m
	}))
	if m := l.ask("mail.test", dnsmessage.TypeMX, 4096); !slices.Equal(texts(m), []string{"mx.test.", "93.184.215.14"}) || len(m.Authorities) > 0 || len(m.Additionals) != 1 {
		t.Errorf("the mail servers are %v, %v, %v", texts(m), m.Authorities, m.Additionals)
	}
	if m := l.ask("alias.test", dnsmessage.TypePTR, 4096); !slices.Equal(texts(m), []string{"dns.google."}) {
		t.Errorf("an alias of addresses is answered by %v", texts(m))
	}
	if m := l.ask("long.test", dnsmessage.TypeTXT, 1232); !m.Truncated || len(m.Answers) > 0 {
		t.Errorf("a long answer is %+v", m)
	}
	if m := l.askOverTCP("long.test", dnsmessage.TypeTXT); len(texts(m)) != 20 {
		t.Errorf("a long answer over TCP is %+v", m)
	}
	for _, name := range []string{"refused.test", "silent.test"} {
		if m := l.ask(name, dnsmessage.TypeTXT, 0); m.RCode != dnsmessage.RCodeServerFailure || len(m.Additionals) > 0 {
			t.Errorf("%s: %+v", name, m)
		}
	}
}

func TestQuestionsThatAreNone(t *testing.T) {
	l := newLab(t)
	two := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711}, Questions: slices.Repeat([]dnsmessage.Question{{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}, 2)}
	chaos := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("version.bind."), Type: dnsmessage.TypeTXT, Class: dnsmessage.ClassCHAOS}}}
	update := dnsmessage.Message{Header: dnsmessage.Header{ID: 4711, OpCode: 5}, Questions: two.Questions[:1]}
	for name, c := range map[string]struct {
		message dnsmessage.Message
		rcode   dnsmessage.RCode
	}{
		"two questions": {two, dnsmessage.RCodeFormatError},
		"another class": {chaos, dnsmessage.RCodeNotImplemented},
		"an update":     {update, dnsmessage.RCodeNotImplemented},
	} {
		b, err := c.message.Pack()
		if err != nil {
			t.Fatal(err)
		}
		conn := l.dnsConn()
		_, _ = conn.Write([]byte("garbage")) // to which there is no answer
		_, _ = conn.Write(b)
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		if err != nil {
			t.Fatal(err)
		}
		if m := unpack(t, answer[:n]); m.RCode != c.rcode {
			t.Errorf("%s: %s, want %s", name, m.RCode, c.rcode)
		}
	}
}

// stuck is a resolver that answers when it is told.
type stuck struct {
	asked chan string
	free  chan struct{}
}

func (s stuck) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	s.asked <- host
	select {
	case <-s.free:
	case <-ctx.Done():
	}
	return []netip.Addr{public}, nil
}

func TestTooManyQuestionsAreAnsweredAtOnce(t *testing.T) {
	s := stuck{asked: make(chan string, maxQuestions+1), free: make(chan struct{})}
	l := newLab(t, func(c *Config) { c.Resolver = s })
	c := l.dnsConn()
	for i := range maxQuestions {
		_, _ = c.Write(query(fmt.Sprintf("q%d.test", i), dnsmessage.TypeA, 0))
		<-s.asked
	}
	_, _ = c.Write(query("more.test", dnsmessage.TypeA, 0))
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if m := unpack(t, b[:n]); m.RCode != dnsmessage.RCodeServerFailure || m.Questions[0].Name.String() != "more.test." {
		t.Errorf("the question beyond the limit is answered by %+v", m)
	}
	close(s.free)
	for range maxQuestions {
		if n, err = c.Read(b); err != nil {
			t.Fatal(err)
		}
		if m := unpack(t, b[:n]); m.RCode != dnsmessage.RCodeSuccess {
			t.Errorf("a question is answered by %+v", m)
		}
	}
}

func FuzzParseQuestion(f *testing.F) {
	f.Add(query("example.com", dnsmessage.TypeA, 1232))
	f.Add(query("1.0.0.127.in-addr.arpa", dnsmessage.TypePTR, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		q, ok := parseQuestion(b)
		if !ok {
			return
		}
		_, _ = reversed(q.host())
		r := q.fail(dnsmessage.RCodeNameError)
		r.blocked = notAllowedWhy
		r.addresses = []netip.Addr{public, netip.MustParseAddr("2606:2800::1")}
		packed := r.pack(q.size)
		if len(packed) > q.size {
			t.Errorf("the answer has %d bytes, and %d have room", len(packed), q.size)
		}
		var m dnsmessage.Message
		if err := m.Unpack(packed); err != nil || m.ID != q.id {
			t.Errorf("the answer %x is no message: %v", packed, err)
		}
	})
}

// FuzzParseAnswer holds that a server's answer brings no closed address to the guest, whatever it says.
func FuzzParseAnswer(f *testing.F) {
	q := question{Question: dnsmessage.Question{Name: dnsmessage.MustNewName("a.test."), Type: dnsmessage.TypeMX, Class: dnsmessage.ClassINET}, size: maxSize}
	seed := dnsmessage.Message{
		Header: dnsmessage.Header{ID: 1, Response: true}, Questions: []dnsmessage.Question{q.Question},
		Answers: []dnsmessage.Resource{addressRecord(q.Name, netip.MustParseAddr("10.0.0.1"), 7), addressRecord(q.Name, public, 7)},
	}
	b, err := seed.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	n := &Network{}
	n.rules.Store(&rules{public: &policy.Policy{Host: func() ([]netip.Addr, error) { return nil, nil }}})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, cut, err := n.parseAnswer(b, 1, q)
		if err != nil || cut {
			return
		}
		packed := r.pack(maxMessage)
		if packed == nil {
			return
		}
		var m dnsmessage.Message
		if err := m.Unpack(packed); err != nil {
			t.Fatalf("the answer %x is no message: %v", packed, err)
		}
		for _, text := range texts(&m) {
			if a, err := netip.ParseAddr(text); err == nil && !n.open(a) {
				t.Errorf("the closed address %s comes through", a)
			}
		}
	})
}
