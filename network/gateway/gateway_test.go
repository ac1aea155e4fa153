package gateway_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/gateway/server"
	"github.com/sourcery-zone/sandbox/network/stack"
)

func TestMain(m *testing.M) {
	confine.Main()
	server.Main()
	os.Exit(m.Run())
}

// started is what a gateway says of its processes.
type started struct {
	pid   int
	walls confine.Report
}

func start(t *testing.T) (*gateway.Gateway, <-chan started) {
	t.Helper()
	return startWith(t, gateway.Options{Mode: network.ModePublic})
}

func startWith(t *testing.T, o gateway.Options) (*gateway.Gateway, <-chan started) {
	t.Helper()
	processes := make(chan started, 16)
	log := &buffer{}
	o.HostName, o.Log, o.Logger = "guest", log, slog.New(slog.NewTextHandler(log, nil))
	o.Started = func(pid int, walls confine.Report) { processes <- started{pid, walls} }
	g, err := gateway.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		if t.Failed() {
			t.Logf("the gateway says:\n%s", log.String())
		}
	})
	return g, processes
}

// socket returns QEMU's end of the link, which does not block, as QEMU sees to.
func socket(t *testing.T, g *gateway.Gateway) int {
	t.Helper()
	fd := int(g.QEMU().Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	return fd
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// askForRouter asks on the guest's network who has the router's address (RFC 826), until there is an answer.
func askForRouter(t *testing.T, g *gateway.Gateway) {
	t.Helper()
	mac := []byte{0x52, 0x54, 0, 1, 2, 3}
	question := append(bytes.Repeat([]byte{0xff}, 6), mac...)
	question = append(question, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	question = append(question, mac...)
	question = append(question, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2)
	fd := socket(t, g)
	for {
		if _, err := unix.Write(fd, question); err != nil && !errors.Is(err, unix.EAGAIN) { // nobody reads now
			t.Fatal(err)
		}
		ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, 200); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		answer := make([]byte, gateway.MTU+14)
		n, err := unix.Read(fd, answer)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if answer = answer[:n]; n >= 42 && bytes.Equal(answer[12:14], []byte{8, 6}) && bytes.Equal(answer[28:32], []byte{10, 0, 2, 2}) {
			return
		}
	}
}

func TestNetworkIsBackWhenItsProcessIsKilled(t *testing.T) {
	told := make(chan struct{}, 1)
	g, processes := startWith(t, gateway.Options{Mode: network.ModePublic, Died: func(context.Context) { told <- struct{}{} }})
	askForRouter(t, g)
	first := <-processes
	if err := unix.Kill(first.pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if second := <-processes; second.pid == first.pid {
		t.Errorf("the process is %d again", first.pid)
	}
	select {
	case <-told:
	default:
		t.Error("nobody was told of the end of a process before the next one served")
	}
	askForRouter(t, g)
}

func TestProcessIsShutIn(t *testing.T) {
	_, processes := start(t)
	p := <-processes
	if missing := p.walls.Missing(); len(missing) > 0 {
		t.Skipf("this machine does not offer all walls: %s: %s", strings.Join(missing, "; "), confine.Remedy)
	}
	process := fmt.Sprintf("/proc/%d", p.pid)
	status, err := os.ReadFile(process + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\nCapEff:\t0000000000000000\n", "\nCapBnd:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("its status has no %q:\n%s", want, status)
		}
	}
	if limits, err := os.ReadFile(process + "/limits"); err != nil || !regexp.MustCompile(`(?m)^Max data size +536870912 +536870912 `).Match(limits) {
		t.Errorf("its memory has no bound: %v\n%s", err, limits)
	}
	for _, hidden := range []string{"/home", "/root", "/var", "/tmp", "/run", "/etc/passwd"} {
		_, err := os.Stat(process + "/root" + hidden)
		if errors.Is(err, os.ErrPermission) {
			t.Skipf("only root may look into the process: %v", err)
		}
		if !errors.Is(err, os.ErrNotExist) {
			t.Errorf("it sees %s: %v", hidden, err)
		}
	}
}

func TestPublishedPortLeadsToTheGuest(t *testing.T) {
	g, processes := start(t)
	askForRouter(t, g)
	f, err := g.Publish(network.Forward{HostIP: netip.MustParseAddr("127.0.0.1"), GuestPort: 22, Proto: network.TCP})
	if err != nil {
		t.Fatal(err)
	}
	if f.HostPort == 0 {
		t.Fatal("no port was chosen")
	}
	if _, err := g.Publish(f); err == nil || !strings.Contains(err.Error(), "is taken") {
		t.Errorf("a port is published twice: %v", err)
	}
	// It stays open while another process takes over.
	if err := unix.Kill((<-processes).pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", netip.AddrPortFrom(f.HostIP, uint16(f.HostPort)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	syn := awaitSegment(t, g)
	if got := int(syn[2])<<8 | int(syn[3]); got != 22 {
		t.Errorf("the guest is called at port %d", got)
	}
	g.Close()
	if _, err := client.Read(make([]byte, 1)); err == nil {
		t.Error("the client reads what nobody has sent")
	}
	if _, err := g.Publish(f); err == nil {
		t.Error("a port is published by a gateway that is closed")
	}
}

func TestPortThatTheGuestRefusesLeadsToItsLoopback(t *testing.T) {
	g, _ := startWith(t, gateway.Options{Mode: network.ModePublic, Loopback: func(_ context.Context, port uint16) (stack.HalfConn, error) {
		l, err := net.Listen("tcp", "127.0.0.1:0") // stands for the guest's loopback
		if err != nil {
			return nil, err
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		guest, err := l.Accept()
		if err != nil {
			return nil, err
		}
		go func() {
			defer guest.Close()
			got, _ := io.ReadAll(guest)
			fmt.Fprintf(guest, "%d: %s", port, got)
		}()
		return c.(*net.TCPConn), nil
	}})
	f, err := g.Publish(network.Forward{HostIP: netip.MustParseAddr("127.0.0.1"), GuestPort: 3000, Proto: network.TCP})
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", netip.AddrPortFrom(f.HostIP, uint16(f.HostPort)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	syn := awaitSegment(t, g)
	reset := slices.Concat(
		[]byte{0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 1, 2, 3, 8, 0},
		[]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, unix.IPPROTO_TCP, 0x62, 0xc0, 10, 0, 2, 15, 10, 0, 2, 2},
		syn[2:4], syn[0:2], make([]byte, 4),
		binary.BigEndian.AppendUint32(nil, binary.BigEndian.Uint32(syn[4:])+1), []byte{5 << 4, 0x14, 0, 0, 0, 0, 0, 0}, // RST, ACK
	)
	if _, err := unix.Write(socket(t, g), reset); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(client, "hello")
	_ = client.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(client); err != nil || string(got) != "3000: hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestUnpublishedPortIsClosed(t *testing.T) {
	g, processes := start(t)
	f, err := g.Publish(network.Forward{HostIP: netip.MustParseAddr("127.0.0.1"), GuestPort: 80, Proto: network.TCP})
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Unpublish(f); err != nil {
		t.Fatal(err)
	}
	if err := g.Unpublish(f); err == nil || !strings.Contains(err.Error(), "is not published") {
		t.Errorf("it is closed twice: %v", err)
	}
	if f, err = g.Publish(f); err != nil { // nobody has the port
		t.Fatal(err)
	}
	// A process that is gone has closed it already, and the next one does not open it.
	if err := unix.Kill((<-processes).pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := g.Unpublish(f); err != nil {
		t.Fatal(err)
	}
	<-processes
	if _, err := g.Publish(f); err != nil {
		t.Error(err)
	}
}

// awaitSegment returns the TCP header of the first segment to the guest.
func awaitSegment(t *testing.T, g *gateway.Gateway) []byte {
	t.Helper()
	frame := make([]byte, gateway.MTU+14)
	for {
		askForRouter(t, g) // which tells the gateway that the guest is there
		ready := []unix.PollFd{{Fd: int32(socket(t, g)), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, 200); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		n, err := unix.Read(socket(t, g), frame)
		if err == nil && n >= 54 && bytes.Equal(frame[12:14], []byte{8, 0}) && frame[23] == unix.IPPROTO_TCP {
			return frame[14+int(frame[14]&0xf)*4 : n]
		}
	}
}

func TestAllowlistHoldsForEachProcess(t *testing.T) {
	g, processes := startWith(t, gateway.Options{Mode: network.ModeAllowlist, Allow: []string{"api.example.com", "preset:github", "203.0.113.0/24:22"}})
	for range 2 {
		askForRouter(t, g)
		awaitRefusal(t, g, [4]byte{8, 8, 8, 8})
		if err := unix.Kill((<-processes).pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitRefusal sends a datagram until the answer is that it is prohibited (RFC 1812, section 5.2.7.1).
func awaitRefusal(t *testing.T, g *gateway.Gateway, to [4]byte) {
	t.Helper()
	packet := append([]byte{0x45, 0, 0, 29, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0, 10, 0, 2, 15}, to[:]...)
	sum := uint32(0)
	for i := 0; i < len(packet); i += 2 {
		sum += uint32(packet[i])<<8 | uint32(packet[i+1])
	}
	sum = ^(sum&0xffff + sum>>16)
	packet[10], packet[11] = byte(sum>>8), byte(sum)
	packet = append(packet, 0x10, 0, 0, 53, 0, 9, 0, 0, 'x')
	frame := append([]byte{0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 1, 2, 3, 8, 0}, packet...)
	answer := make([]byte, gateway.MTU+14)
	for {
		askForRouter(t, g) // there may be another process now
		if _, err := unix.Write(socket(t, g), frame); err != nil && !errors.Is(err, unix.EAGAIN) {
			t.Fatal(err)
		}
		ready := []unix.PollFd{{Fd: int32(socket(t, g)), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, 200); err != nil && !errors.Is(err, unix.EINTR) {
			t.Fatal(err)
		}
		n, err := unix.Read(socket(t, g), answer)
		if err == nil && n >= 36 && answer[23] == unix.IPPROTO_ICMP && answer[34] == 3 && answer[35] == 13 {
			return
		}
	}
}

func TestWhatIsNoNetworkDoesNotStart(t *testing.T) {
	for want, o := range map[string]gateway.Options{
		"the path is missing": {Mode: network.ModeAllowlist, Allow: []string{"https://example.com"}},
		"needs a proxy":       {Mode: network.ModeAllowlist, Allow: []string{"https://example.com/**"}},
		"authority":           {Mode: network.ModeAllowlist, Allow: []string{"https://example.com/**"}, Authority: []byte("x")},
		`of the mode "user"`:  {Mode: network.ModeUser},
	} {
		g, err := gateway.Start(t.Context(), o)
		if err == nil {
			g.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %s", o.Mode, err, want)
		}
	}
}

func TestRulesHoldForEachProcess(t *testing.T) {
	g, processes := startWith(t, gateway.Options{Mode: network.ModePublic})
	askForRouter(t, g)
	for _, refused := range []string{"example.com", "127.0.0.1"} {
		if err := g.SetRules(nil, []string{refused}); err == nil {
			t.Errorf("the public network denies %s", refused)
		}
	}
	if err := g.SetRules([]string{"10.1.0.0/16:5432"}, []string{"8.8.8.8"}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		awaitRefusal(t, g, [4]byte{8, 8, 8, 8})
		if err := unix.Kill((<-processes).pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.AllowOnce("forged"); err == nil {
		t.Error("a question is answered that nobody has asked")
	}
}

// sendSYN sends the first segment of a connection.
func sendSYN(t *testing.T, g *gateway.Gateway, to [4]byte, port uint16) {
	t.Helper()
	sum := func(data []byte, more uint32) uint16 {
		for i := 0; i+1 < len(data); i += 2 {
			more += uint32(data[i])<<8 | uint32(data[i+1])
		}
		for more > 0xffff {
			more = more&0xffff + more>>16
		}
		return ^uint16(more)
	}
	packet := append([]byte{0x45, 0, 0, 40, 0, 0, 0, 0, 64, unix.IPPROTO_TCP, 0, 0, 10, 0, 2, 15}, to[:]...)
	s := sum(packet, 0)
	packet[10], packet[11] = byte(s>>8), byte(s)
	segment := []byte{0x10, 0, byte(port >> 8), byte(port), 0, 0, 0, 1, 0, 0, 0, 0, 5 << 4, 2, 0xff, 0xff, 0, 0, 0, 0}
	s = sum(segment, uint32(unix.IPPROTO_TCP)+20+uint32(sum(packet[12:20], 0)^0xffff))
	segment[16], segment[17] = byte(s>>8), byte(s)
	frame := append([]byte{0x52, 0x55, 10, 0, 2, 2, 0x52, 0x54, 0, 1, 2, 3, 8, 0}, append(packet, segment...)...)
	if _, err := unix.Write(socket(t, g), frame); err != nil {
		t.Fatal(err)
	}
}

func TestQuestionsReachWhoStartedTheGateway(t *testing.T) {
	questions := make(chan stack.Question, 16)
	g, _ := startWith(t, gateway.Options{Mode: network.ModeAsk, Question: func(q stack.Question) { questions <- q }})
	askForRouter(t, g)
	sendSYN(t, g, [4]byte{93, 184, 215, 14}, 22)
	q := <-questions
	if q.Host != "93.184.215.14" || q.Port != 22 || q.Rule != "93.184.215.14:22" || q.Answer != "" {
		t.Errorf("the question is %+v", q)
	}
	if err := g.SetRules(nil, []string{q.Rule}); err != nil {
		t.Fatal(err)
	}
	if end := <-questions; end.ID != q.ID || end.Answer != stack.AnswerNever {
		t.Errorf("it ends as %+v", end)
	}
	if err := g.AllowOnce(q.ID); err == nil {
		t.Error("it is answered twice")
	}
}
