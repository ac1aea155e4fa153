package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// hostileGuest logs a client in and grants every request; what it does on each
// session is up to serve, which gets the line of the first question.
func hostileGuest(t *testing.T, serve func(session ssh.Channel)) *Client {
	t.Helper()
	return guestBehind(t, func(conn net.Conn) net.Conn { return conn }, serve)
}

// guestBehind is hostileGuest on a connection that wrap may spoil.
func guestBehind(t *testing.T, wrap func(net.Conn) net.Conn, serve func(session ssh.Channel)) *Client {
	t.Helper()
	return hostileServer(t, wrap, func(_ *ssh.ServerConn, channels <-chan ssh.NewChannel) {
		for offered := range channels {
			session, requests, err := offered.Accept()
			if err != nil {
				return
			}
			go func() {
				for request := range requests {
					_ = request.Reply(true, nil)
				}
			}()
			go serve(session)
		}
	})
}

// hostileServer logs a client in, and leaves the rest to serve.
func hostileServer(t *testing.T, wrap func(net.Conn) net.Conn, serve func(*ssh.ServerConn, <-chan ssh.NewChannel)) *Client {
	t.Helper()
	return connect(t, dialGuest(t, newKey(t), func(conn net.Conn, config *ssh.ServerConfig) {
		server, channels, requests, err := ssh.NewServerConn(wrap(conn), config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		serve(server, channels)
	}))
}

// heap is how much memory the process has taken for its heap, which grows with
// the largest that the heap has been.
func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys)
}

// flood is what a hostile guest sends where a few bytes are expected.
const flood = 256 << 20

// spare is how much memory a flood may cost, in bytes: buffers of the
// connection, and garbage between two collections.
const spare = 64 << 20

func sendFlood(w io.Writer) {
	piece := bytes.Repeat([]byte("x"), 32<<10)
	for range flood / len(piece) {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

// answers reads questions, and answers each with what answer makes of its id.
func answers(answer func(id uint64) string) func(ssh.Channel) {
	return func(session ssh.Channel) {
		questions := json.NewDecoder(session)
		for {
			var question wire.ControlRequest
			if questions.Decode(&question) != nil {
				return
			}
			if _, err := io.WriteString(session, answer(question.ID)); err != nil {
				return
			}
		}
	}
}

func TestHostileAnswersAreRefused(t *testing.T) {
	for name, tt := range map[string]struct {
		guest func(ssh.Channel)
		want  string
	}{
		"an answer without an end": {
			func(session ssh.Channel) { sendFlood(session) }, "an answer has more than 1048576 bytes",
		},
		"a string without an end": {
			func(session ssh.Channel) {
				_, _ = io.WriteString(session, `{"id":1,"error":{"code":"failed","message":"`)
				sendFlood(session)
			}, "an answer has more than",
		},
		"a deep answer": {
			answers(func(id uint64) string {
				return fmt.Sprintf(`{"id":%d,"result":%s%s}`+"\n", id, strings.Repeat("[", 400_000), strings.Repeat("]", 400_000))
			}), "exceeded max depth",
		},
		"an answer to nothing": {
			answers(func(id uint64) string { return fmt.Sprintf(`{"id":%d}`+"\n", id+1) }), "not asked",
		},
		"no JSON":        {answers(func(uint64) string { return "\x1b]52;c;\x07\n" }), "invalid character"},
		"an end at once": {func(session ssh.Channel) { session.Close() }, ""},
		"its own words": {
			answers(func(id uint64) string {
				return fmt.Sprintf(`{"id":%d,"error":{"code":"failed","message":"%s"}}`+"\n", id, strings.Repeat("ü", 100_000))
			}), "üüü…",
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := hostileGuest(t, tt.guest)
			before := heap()
			_, err := client.Status(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %.200v, want an error with %q", err, tt.want)
			}
			if err != nil && len(err.Error()) > 2*maxText {
				t.Errorf("the error has %d bytes", len(err.Error()))
			}
			if grown := heap() - before; grown > spare {
				t.Errorf("the heap grew by %d MiB", grown>>20)
			}
		})
	}
}

func TestHostileStatusIsShortened(t *testing.T) {
	long := strings.Repeat("x", 5000)
	status := Status{Reached: map[Stage]time.Duration{Stage(long): 1, StageInit: 2}, System: long, Failure: long, Network: Network{Problem: long}}
	for range 150 {
		status.FailedUnits = append(status.FailedUnits, long)
	}
	text, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	client := hostileGuest(t, answers(func(id uint64) string { return fmt.Sprintf(`{"id":%d,"result":%s}`+"\n", id, text) }))
	got, err := client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Reached) != 1 || len(got.System) > maxText+3 || len(got.Failure) > maxText+3 || len(got.Network.Problem) > maxText+3 {
		t.Errorf("stages %d, system %d, failure %d, network %d bytes", len(got.Reached), len(got.System), len(got.Failure), len(got.Network.Problem))
	}
	if n := len(got.FailedUnits); n != maxFailedUnits+1 || got.FailedUnits[n-1] != "and 50 more" || len(got.FailedUnits[0]) > maxText+3 {
		t.Errorf("%d failed units, the last of them %.20q", n, got.FailedUnits[n-1])
	}
}

func TestOutputOfAHostileCommandIsBounded(t *testing.T) {
	client := hostileGuest(t, func(session ssh.Channel) { sendFlood(session) })
	before := heap()
	out, err := client.Command(t.Context(), "cat", "/proc/meminfo").Output()
	if err == nil || !strings.Contains(err.Error(), "wrote more than") || len(out) != MaxOutput {
		t.Errorf("%d bytes and %v, want %d and an error that says so", len(out), err, MaxOutput)
	}
	if grown := heap() - before; grown > spare {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// deafConn reads nothing any more once it was told so.
type deafConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
	deaf   chan struct{}
}

func (c *deafConn) Read(p []byte) (int, error) {
	select {
	case <-c.deaf:
		<-c.closed
		return 0, net.ErrClosed
	default:
		return c.Conn.Read(p)
	}
}

func (c *deafConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// A guest that leaves unread what the host sends must not hold the host up, and
// neither must one that answers nothing of what it reads.
func TestAGuestThatReadsNothingHoldsNobodyUp(t *testing.T) {
	deaf := make(chan struct{})
	var guest *deafConn
	made := make(chan struct{})
	client := guestBehind(t, func(conn net.Conn) net.Conn {
		guest = &deafConn{Conn: conn, deaf: deaf, closed: make(chan struct{})}
		close(made)
		return guest
	}, func(ssh.Channel) {})
	<-made
	t.Cleanup(func() { guest.Close() })
	// The control channel is open, and its question is not answered.
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errReason)
	defer cancel()
	if _, err := client.Status(ctx); !errors.Is(err, errReason) {
		t.Fatalf("got %v, want %v", err, errReason)
	}
	close(deaf)
	// More than the window of the channel, so that writing stops.
	ctx, cancel = context.WithTimeoutCause(t.Context(), 50*time.Millisecond, errReason)
	defer cancel()
	if err := client.Configure(ctx, BootConfig{Entropy: make([]byte, 4<<20)}); !errors.Is(err, errReason) {
		t.Errorf("configure: got %v, want %v", err, errReason)
	}
	for name, call := range map[string]func(context.Context) error{
		"status":   func(ctx context.Context) error { _, err := client.Status(ctx); return err },
		"poweroff": client.PowerOff,
		"sync":     client.Sync,
		"command":  func(ctx context.Context) error { return client.Command(ctx, "true").Run() },
		"output":   func(ctx context.Context) error { _, err := client.Command(ctx, "true").Output(); return err },
	} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errReason)
		if err := call(ctx); !errors.Is(err, errReason) {
			t.Errorf("%s: got %v, want %v", name, err, errReason)
		}
		cancel()
	}
}

func TestAGuestOpensNoChannels(t *testing.T) {
	const each = 100
	kinds := []string{"session", "forwarded-tcpip", "x11", "auth-agent@openssh.com", "direct-streamlocal@openssh.com"}
	refused := make(chan int, 1)
	hostileServer(t, func(conn net.Conn) net.Conn { return conn }, func(server *ssh.ServerConn, _ <-chan ssh.NewChannel) {
		count := 0
		for _, kind := range kinds {
			for range each {
				if _, _, err := server.OpenChannel(kind, bytes.Repeat([]byte("x"), 1000)); err != nil {
					count++
				}
			}
		}
		refused <- count
	})
	if got := <-refused; got != each*len(kinds) {
		t.Errorf("%d of %d channels were refused", got, each*len(kinds))
	}
}

func TestAGuestOpensNoMoreChannelsThanItMay(t *testing.T) {
	const opened = maxLent + 50
	asked, refused := make(chan struct{}), make(chan string, opened)
	guest := hostileServer(t, func(conn net.Conn) net.Conn { return conn }, func(server *ssh.ServerConn, _ <-chan ssh.NewChannel) {
		<-asked
		for range opened {
			go func() {
				if _, _, err := server.OpenChannel(wire.ChannelForwardedTCP, nil); err != nil {
					refused <- err.Error()
				}
			}()
		}
	})
	// A client that answers none of them.
	var offers <-chan ssh.NewChannel
	down := make(chan *ssh.ServerConn, 1)
	client := hostileServer(t, func(conn net.Conn) net.Conn { return conn }, func(server *ssh.ServerConn, _ <-chan ssh.NewChannel) { down <- server })
	offers = client.SSH().HandleChannelOpen(wire.ChannelForwardedTCP)
	private := &own{ctx: t.Context(), down: <-down, dial: func(context.Context) (*ssh.Client, error) { return guest.SSH(), nil }}
	if _, err := private.accept(wire.ChannelForwardedTCP); err != nil {
		t.Fatal(err)
	}
	close(asked)
	for range opened - maxLent {
		if err := <-refused; !strings.Contains(err, "100 connections are open already") {
			t.Error(err)
		}
	}
	for range maxLent {
		<-offers
	}
	select {
	case err := <-refused:
		t.Errorf("one more was refused: %s", err)
	case <-offers:
		t.Error("one more reached the client")
	default:
	}
}

// muxFrame is a frame of yamux without a body, as its specification has it.
func muxFrame(kind byte, flags uint16, stream, length uint32) []byte {
	frame := binary.BigEndian.AppendUint16([]byte{0, kind}, flags)
	frame = binary.BigEndian.AppendUint32(frame, stream)
	return binary.BigEndian.AppendUint32(frame, length)
}

func TestFramesThatNoAgentSendsEndTheConversation(t *testing.T) {
	const update, goAway, ack = 1, 3, 2
	data := append(muxFrame(wire.FrameData, 0, 1, 30), bytes.Repeat([]byte{0, wire.FramePing, 0xff}, 10)...)
	for name, tt := range map[string]struct {
		frames [][]byte
		want   error
	}{
		"data and windows": {[][]byte{muxFrame(update, ack, 1, 0), data, muxFrame(update, 0, 1, 1<<20), data, muxFrame(goAway, 0, 0, 0)}, nil},
		"a ping":           {[][]byte{data, muxFrame(wire.FramePing, wire.FlagSYN, 0, 7)}, errHostileFrame},
		"a ping's answer":  {[][]byte{data, muxFrame(wire.FramePing, ack, 0, 7)}, errHostileFrame},
		"a stream":         {[][]byte{data, muxFrame(update, wire.FlagSYN, 2, 0)}, errHostileFrame},
		"a stream by data": {[][]byte{data, muxFrame(wire.FrameData, wire.FlagSYN|4, 2, 5)}, errHostileFrame},
	} {
		stream := bytes.Join(tt.frames, nil)
		for size := 1; size <= len(stream); size++ {
			frames := &guestFrames{}
			var err error
			for piece := range slices.Chunk(stream, size) {
				if err = frames.follow(piece); err != nil {
					break
				}
			}
			if !errors.Is(err, tt.want) {
				t.Fatalf("%s, in pieces of %d bytes: got %v, want %v", name, size, err, tt.want)
			}
		}
	}
}

// portOfGuest is the guest's end of a serial port, on which the host was just
// greeted.
func portOfGuest(t *testing.T) (port net.Conn, mux Mux) {
	t.Helper()
	ours, port := net.Pipe()
	t.Cleanup(func() { port.Close() })
	greeted := make(chan struct{})
	go func() {
		defer close(greeted)
		var finder wire.CallFinder
		for piece := make([]byte, 64); ; {
			n, err := port.Read(piece)
			if err != nil {
				return
			}
			if word, _, found := finder.Find(piece[:n]); found {
				_, _ = io.WriteString(port, wire.Hello(word))
				return
			}
		}
	}()
	mux, err := NewSerialMux(t.Context(), ours)
	if err != nil {
		t.Fatal(err)
	}
	<-greeted
	return port, mux
}

// A ping has to be answered, and a guest that reads no answers makes the host
// keep all of them.
func TestAFloodOfPingsEndsTheConversation(t *testing.T) {
	port, mux := portOfGuest(t)
	pings := bytes.Repeat(muxFrame(wire.FramePing, wire.FlagSYN, 0, 7), 1000)
	before := runtime.NumGoroutine()
	for range 100 {
		if _, err := port.Write(pings); err != nil {
			break
		}
	}
	if now := runtime.NumGoroutine(); now > before+10 {
		t.Errorf("there are %d goroutines more than before", now-before)
	}
	if _, err := mux.Open(t.Context()); err == nil {
		t.Error("the conversation goes on")
	}
}

// The guest says when a stream is closed. One that does not must not keep whoever
// reads from it.
func TestAClosedStreamEndsAtOnce(t *testing.T) {
	port, mux := portOfGuest(t)
	go func() { _, _ = io.Copy(io.Discard, port) }()
	stream, err := mux.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := stream.Read(make([]byte, 1))
		ended <- err
	}()
	if err := stream.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err == nil {
		t.Error("a closed stream was read from")
	}
}
