package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/policy"
	"golang.org/x/net/dns/dnsmessage"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
)

// memory is what the process has allocated, in bytes.
func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// watch fails the test if the process has grown by more than limit, and logs by how much it has.
func watch(t *testing.T, limit int64) (check func(when string)) {
	t.Helper()
	before := memory()
	return func(when string) {
		t.Helper()
		grown := memory() - before
		t.Logf("%s: %.1f MiB more", when, float64(grown)/(1<<20))
		if grown > limit {
			t.Errorf("%s: the process has grown by %d MiB, more than %d", when, grown>>20, limit>>20)
		}
	}
}

// pause makes the guest take nothing of what it is sent, as one does whose processors stand still, until resume.
func (l *lab) pause() (resume func()) {
	l.paused.Lock()
	return l.paused.Unlock
}

func TestAPausedGuestHoldsNobodyUp(t *testing.T) {
	l := newLab(t)
	data := make([]byte, 16<<20)
	_, _ = rand.Read(data)
	download := l.listen(80, func(c *net.TCPConn) {
		_, _ = c.Write(data)
		c.Close()
	})
	heard := make(chan string, 1)
	other := l.listen(81, func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		heard <- string(b)
	})
	upload := l.mustConnect(other)
	const downloads = 8
	check := watch(t, 32<<20)
	var started, done sync.WaitGroup
	started.Add(downloads)
	for range downloads {
		done.Go(func() {
			c, err := l.connect(download)
			if err != nil {
				t.Error(err)
				started.Done()
				return
			}
			defer c.Close()
			b := make([]byte, 64<<10)
			for at := 0; at < len(data); at += len(b) {
				_, err := io.ReadFull(c, b)
				if at == 0 {
					started.Done()
				}
				if err != nil || !bytes.Equal(b, data[at:at+len(b)]) {
					t.Errorf("a download is not what was sent from byte %d on: %v", at, err)
					return
				}
			}
		})
	}
	started.Wait()
	resume := l.pause()
	// The network sends until nothing more fits, and its stack goes on nonetheless: it takes what the guest said
	// before, dials, and closes.
	for _, sent := l.network.Dropped(); ; _, sent = l.network.Dropped() {
		l.network.link.mu.Lock()
		waiting := l.network.link.sending
		l.network.link.mu.Unlock()
		if waiting || sent > 0 {
			break
		}
		runtime.Gosched()
	}
	check("while the guest is paused")
	_, _ = upload.Write([]byte("from a paused guest's card"))
	_ = upload.CloseWrite()
	if got := <-heard; got != "from a paused guest's card" {
		t.Errorf("the host hears %q", got)
	}
	listener := listenLocal(t)
	stop, err := l.network.Publish(listener, 8080)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	stop()
	c.Close()
	resume()
	done.Wait()
}

// drainSocket reads what the network sends until the socket is closed, and counts it.
func (l *lab) drainSocket() (answers func() map[string]int) {
	var mu sync.Mutex
	counts := map[string]int{}
	go func() {
		b := make([]byte, 70000)
		for {
			n, err := l.socket.Read(b)
			if err != nil {
				return
			}
			mu.Lock()
			counts[what(b[:n])]++
			mu.Unlock()
		}
	}()
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		copied := map[string]int{}
		for k, v := range counts {
			copied[k] = v
		}
		return copied
	}
}

// blackHole is an Internet that never answers.
func blackHole(c *Config) {
	c.Dial = func(ctx context.Context, proto policy.Proto, a netip.AddrPort) (net.Conn, error) {
		if proto == policy.UDP {
			return net.Dial("udp", "127.0.0.1:9")
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

func TestFloodsAreBounded(t *testing.T) {
	const frames = 5000
	slow := stuck{asked: make(chan string, frames), free: make(chan struct{})}
	l := newBareLab(t, blackHole, func(c *Config) {
		c.Resolver = slow
		c.Log = nil
	})
	l.barrier()
	answers := l.drainSocket()
	check := watch(t, 64<<20)
	from := func(i int) netip.AddrPort { return netip.AddrPortFrom(Guest, uint16(1024+i%60000)) }

	for i := range frames {
		l.sendIP(tcpSegment(from(i), netip.AddrPortFrom(public, uint16(1+i/60000)), header.TCPFlagSyn))
	}
	check("after SYNs to hosts that do not answer")
	l.network.mu.Lock()
	if l.network.tcp > l.config.Connections && l.config.Connections > 0 || l.network.tcp > DefaultConnections {
		t.Errorf("there are %d attempts", l.network.tcp)
	}
	l.network.mu.Unlock()

	for _, port := range []uint16{81, httpPort} {
		for i := range frames {
			l.sendIP(tcpSegment(from(i), netip.AddrPortFrom(netip.MustParseAddr("192.168.1.1"), port), header.TCPFlagSyn))
		}
		check(fmt.Sprintf("after SYNs to port %d of closed addresses", port))
	}

	for i := range frames {
		l.sendIP(udpDatagram(from(i), netip.AddrPortFrom(public, 9), make([]byte, 100)))
	}
	check("after datagrams of many ports")
	l.network.mu.Lock()
	if l.network.udp > maxFlows {
		t.Errorf("there are %d flows", l.network.udp)
	}
	l.network.mu.Unlock()

	for i := range frames {
		l.sendIP(udpDatagram(from(i), netip.AddrPortFrom(DNS, 53), query(fmt.Sprintf("n%d.test", i), dnsmessage.TypeA, 0)))
	}
	check("after questions")
	if n := len(l.network.questions); n > maxQuestions {
		t.Errorf("%d questions are in flight", n)
	}

	fragment := header.IPv4(udpDatagram(from(1), netip.AddrPortFrom(public, 9), make([]byte, 1400)))
	for i := range frames {
		fragment.SetID(uint16(i))
		fragment.SetFlagsFragmentOffset(header.IPv4FlagMoreFragments, 0)
		fragment.SetChecksum(0)
		fragment.SetChecksum(^fragment.CalculateChecksum())
		l.sendIP(fragment)
	}
	check("after fragments")

	garbage := make([]byte, 300)
	for range frames {
		_, _ = rand.Read(garbage)
		l.send(garbage[:garbage[0]])
		copy(garbage, ethernet(gatewayMAC, guestMAC, header.IPv4ProtocolNumber, []byte{0x45}))
		l.send(garbage)
	}
	check("after garbage")

	counts := answers()
	t.Logf("the guest got %v", counts)
	if counts[reset] == 0 || counts[prohibited] == 0 || counts[unreachable] == 0 {
		t.Errorf("what is refused is not told: %v", counts)
	}
	// And the next one is answered as ever.
	close(slow.free)
	for deadline := time.Now().Add(patience); answers()[reset] == counts[reset]; {
		l.sendIP(tcpSegment(netip.AddrPortFrom(Guest, 999), netip.MustParseAddrPort("10.0.2.2:1"), header.TCPFlagSyn))
		if time.Now().After(deadline) {
			t.Fatal("nothing is answered any more")
		}
	}
}

// Who ends a connection first waits for the other one, and a guest need not end anything.
func TestAConnectionHasItsPlaceUntilTheGuestHasEndedItAsWell(t *testing.T) {
	const places = 8
	has := func(flags header.TCPFlags) func(header.TCP) bool {
		return func(h header.TCP) bool { return h.Flags()&flags == flags }
	}
	for _, c := range []struct {
		name    string
		to      netip.AddrPort
		says    string // after which the network ends the connection
		confirm bool   // that it has ended
	}{
		{"a page, of which the end is confirmed", policyPage, "GET / HTTP/1.0\r\n\r\n", true},
		{"a refusal, of which it is", netip.MustParseAddrPort("192.168.1.1:80"), "GET / HTTP/1.0\r\n\r\n", true},
		{"questions, of which it is", dnsAddress, "\xff\xff", true},
		{"questions, of which it is not", dnsAddress, "\xff\xff", false},
	} {
		l := newBareLab(t, func(c *Config) { c.Connections = places })
		l.barrier()
		var next header.TCP // after which the guest has to say something
		for i := range places {
			guest := netip.AddrPortFrom(Guest, uint16(4000+i))
			l.sendIP(tcpData(guest, c.to, header.TCPFlagSyn, 1, 0, nil, nil))
			h := l.segment(c.to, guest, has(header.TCPFlagSyn|header.TCPFlagAck))
			l.sendIP(tcpData(guest, c.to, header.TCPFlagAck|header.TCPFlagPsh, 2, h.SequenceNumber()+1, nil, []byte(c.says)))
			next = l.segment(c.to, guest, has(header.TCPFlagFin))
			if c.confirm {
				l.sendIP(tcpData(guest, c.to, header.TCPFlagAck, uint32(2+len(c.says)), next.SequenceNumber()+uint32(len(next.Payload()))+1, nil, nil))
			}
		}
		other := netip.AddrPortFrom(Guest, 5000)
		try := func() header.TCP {
			l.sendIP(tcpData(other, c.to, header.TCPFlagSyn, 1, 0, nil, nil))
			return l.segment(c.to, other, func(header.TCP) bool { return true })
		}
		for began := time.Now(); time.Since(began) < 300*time.Millisecond; { // in which a place would get free
			if h := try(); h.Flags()&header.TCPFlagRst == 0 {
				t.Fatalf("%s: another connection than the %d that have not ended gets %s", c.name, places, h.Flags())
			}
		}
		if c.to != dnsAddress {
			l.event(func(e Event) bool { return e.Addr == c.to && e.Rule != RuleLimit })
			if h := try(); h.Flags()&header.TCPFlagRst == 0 {
				t.Fatalf("%s: it is told of as the guest ends it, which may be much later", c.name)
			}
		}
		last := netip.AddrPortFrom(Guest, 4000+places-1)
		l.sendIP(tcpData(last, c.to, header.TCPFlagAck|header.TCPFlagFin, uint32(2+len(c.says)), next.SequenceNumber()+uint32(len(next.Payload()))+1, nil, nil))
		for deadline := time.Now().Add(patience); try().Flags()&header.TCPFlagRst != 0; {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the place of one that has ended is not free", c.name)
			}
		}
	}
}

func TestTheLinkEndsWithItsOtherEnd(t *testing.T) {
	ours, guests, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	n, err := New(Config{Link: ours, MTU: 1500, Policy: &policy.Policy{}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guests.Write(ethernet(broadcastMAC, guestMAC, header.ARPProtocolNumber, arpPacket(header.ARPRequest, guestMAC, Guest, DNS))); err != nil {
		t.Fatal(err)
	}
	guests.Close()
	if err := n.Serve(context.Background()); err == nil {
		t.Error("Serve ends without an error")
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ours, guests, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer guests.Close()
	n, err := New(Config{Link: ours, MTU: 1500, Policy: &policy.Policy{}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.Serve(ctx); err != context.Canceled {
		t.Errorf("it ends with %v", err)
	}
}

func TestLinksThatAreNone(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for name, c := range map[string]Config{
		"a file":    {Link: f, MTU: 1500, Policy: &policy.Policy{}},
		"nothing":   {MTU: 1500, Policy: &policy.Policy{}},
		"no policy": {Link: f, MTU: 1500},
		"no MTU":    {Link: f, Policy: &policy.Policy{}},
	} {
		if _, err := New(c); err == nil {
			t.Errorf("%s is taken for a link", name)
		}
	}
}

// serveSpeed is a service at which a connection's first byte says what it is for: to get bytes, to put them, or to wait.
func serveSpeed(c *net.TCPConn) {
	defer c.Close()
	var kind [1]byte
	if _, err := io.ReadFull(c, kind[:]); err != nil {
		return
	}
	switch kind[0] {
	case 'p':
		_, _ = io.Copy(io.Discard, c)
	case 'g':
		b := make([]byte, 256<<10)
		for {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	case 'e':
		_, _ = io.Copy(c, c)
	}
}

func BenchmarkThroughput(b *testing.B) {
	for _, kind := range []string{"get", "put"} {
		for _, connections := range []int{1, 16} {
			b.Run(fmt.Sprintf("%s-%d", kind, connections), func(b *testing.B) {
				l := newLab(b)
				a := l.listen(80, serveSpeed)
				const chunk = 256 << 10
				var conns []*gonet.TCPConn
				for range connections {
					c := l.mustConnect(a)
					_, _ = c.Write([]byte(kind[:1]))
					conns = append(conns, c)
				}
				b.SetBytes(chunk * int64(connections))
				b.ResetTimer()
				var wg sync.WaitGroup
				for _, c := range conns {
					wg.Go(func() {
						buf := make([]byte, chunk)
						for range b.N {
							var err error
							if kind == "get" {
								_, err = io.ReadFull(c, buf)
							} else {
								_, err = c.Write(buf)
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
						if kind == "put" {
							_ = c.CloseWrite()
							_, _ = io.ReadAll(c)
						}
					})
				}
				wg.Wait()
				_, dropped := l.network.Dropped()
				b.ReportMetric(float64(dropped)/float64(b.N), "dropped/op")
			})
		}
	}
}

func BenchmarkConnect(b *testing.B) {
	l := newLab(b)
	a := l.listen(80, serveSpeed)
	connectAndAsk(b, l, a)
}

// connectAndAsk makes one connection after the other, and waits on each for an answer.
func connectAndAsk(b *testing.B, l *lab, a netip.AddrPort) {
	for b.Loop() {
		c, err := l.connect(a)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write([]byte("ex"))
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}

// BenchmarkMemory reports what a thousand connections take that wait, on the network's side and the guest's together.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		before := memory()
		l := newLab(b)
		a := l.listen(80, serveSpeed)
		b.ReportMetric(float64(memory()-before)/(1<<20), "MiB-idle")
		before = memory()
		const connections = 1000
		for range connections {
			c, err := l.connect(a)
			if err != nil {
				b.Fatal(err)
			}
			_, _ = c.Write([]byte("ex"))
			if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			defer c.Close()
		}
		b.ReportMetric(float64(memory()-before)/(1<<10)/connections, "KiB/conn")
	}
}
