package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lastWords is how long we go on reading when a write failed: a QEMU that is ending may have sent
// the event that says why, and half a connection must not be waited on for ever.
const lastWords = 2 * time.Second

// message is anything that a monitor sends: its greeting, an event, or a reply.
type message struct {
	QMP *Greeting `json:"QMP"`

	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`

	ID     json.RawMessage `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// reply is how a command ended: with QEMU's message, or with the connection.
type reply struct {
	message *message
	err     error
}

// transport carries commands and their replies over one connection, and events to subscribers. It
// knows the form of messages and no command.
type transport struct {
	conn   net.Conn
	log    transcript
	events *broadcast

	writing  chan struct{} // holds a token while a command is being written
	greeted  chan struct{} // closed when greeting is there
	greeting Greeting
	done     chan struct{} // closed when the reader has ended

	mu     sync.Mutex
	lastID uint64
	calls  map[uint64]chan reply // nil for a call that nobody waits for any more
	cause  error                 // why we closed the connection, if we did
	err    error                 // why the connection ended
}

func newTransport(conn net.Conn, log transcript) *transport {
	t := &transport{
		conn:    conn,
		log:     log,
		events:  newBroadcast(log),
		writing: make(chan struct{}, 1),
		greeted: make(chan struct{}),
		done:    make(chan struct{}),
		calls:   map[uint64]chan reply{},
	}
	go t.read()
	return t
}

// read is the only reader of the connection. The decoder copies what it hands out, whatever its
// size, and does not mind where packets, lines and messages begin and end.
func (t *transport) read() {
	bounded := &messageReader{r: t.conn}
	in := json.NewDecoder(bounded)
	for {
		m := new(message)
		bounded.taken = 0
		if err := in.Decode(m); err != nil {
			t.end(endOfConnection(err, in.Buffered()))
			return
		}
		t.log.received(m)
		if err := t.dispatch(m); err != nil {
			t.end(err)
			return
		}
	}
}

// maxMessage bounds a message, in bytes: a QEMU that its guest took over may send
// one without an end. The longest of an honest one, its schema, has a quarter of a
// MiB.
const maxMessage = 16 << 20

// messageReader fails when a message does not end within maxMessage.
type messageReader struct {
	r     io.Reader
	taken int // since the last message ended
}

func (m *messageReader) Read(p []byte) (int, error) {
	if m.taken >= maxMessage {
		return 0, fmt.Errorf("%w: a message has more than %d bytes", ErrProtocol, maxMessage)
	}
	n, err := m.r.Read(p)
	m.taken += n
	return n, err
}

func (t *transport) dispatch(m *message) error {
	switch {
	case m.Event != "":
		return t.events.publish(m)
	case m.Return != nil || m.Error != nil:
		return t.answer(m)
	case m.QMP != nil:
		select {
		case <-t.greeted:
			return fmt.Errorf("%w: it greeted a second time", ErrProtocol)
		default:
		}
		t.greeting = *m.QMP
		close(t.greeted)
		return nil
	default:
		return fmt.Errorf("%w: a message is neither a greeting, an event nor a reply", ErrProtocol)
	}
}

// answer gives a reply to the call that it belongs to. One that belongs to no call means that both
// sides disagree about what was asked, and some call would wait for ever.
func (t *transport) answer(m *message) error {
	id, err := strconv.ParseUint(string(m.ID), 10, 64)
	t.mu.Lock()
	defer t.mu.Unlock()
	waiting, known := t.calls[id]
	switch {
	case (err != nil || !known) && m.Error != nil:
		return fmt.Errorf("%w: it refused a command that was not sent (id %q): %s", ErrProtocol, m.ID, m.Error.Desc)
	case err != nil || !known:
		return fmt.Errorf("%w: it answered a command that was not sent (id %q)", ErrProtocol, m.ID)
	}
	delete(t.calls, id)
	if waiting != nil {
		waiting <- reply{message: m}
	}
	return nil
}

// end records why the connection ended and tells everybody. Only the reader calls it, as its last act.
func (t *transport) end(err error) {
	t.conn.Close()
	t.mu.Lock()
	if t.cause != nil {
		err = t.cause
	}
	t.err = err
	for id, waiting := range t.calls {
		delete(t.calls, id)
		if waiting != nil {
			waiting <- reply{err: err}
		}
	}
	t.mu.Unlock()
	t.log.ended(err)
	t.events.end()
	close(t.done)
}

// shut closes the connection for the given reason, unless it was closed for another one before, and
// waits until the reader is gone.
func (t *transport) shut(cause error) error {
	t.blame(cause)
	err := t.conn.Close()
	<-t.done
	if errors.Is(err, net.ErrClosed) {
		return nil // the reader was quicker
	}
	return err
}

// blame makes cause the reason of the end that is about to come.
func (t *transport) blame(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cause == nil {
		t.cause = cause
	}
}

// Err is nil until the connection has ended.
func (t *transport) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err
}

// roundTrip sends body, a JSON object that has at least one member and no id, and returns the reply
// to it, which may be a refusal. A descriptor of file goes along, unless that is nil. name is for
// messages only.
func (t *transport) roundTrip(ctx context.Context, name string, body []byte, file *os.File) (*message, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("QMP command %q was not sent: %w", name, err)
	}
	answer := make(chan reply, 1)
	id, err := t.register(answer)
	if err != nil {
		return nil, fmt.Errorf("QMP command %q was not sent: %w", name, err)
	}
	if err := t.send(ctx, id, name, body, file); err != nil {
		t.forget(id)
		return nil, fmt.Errorf("QMP command %q was not sent: %w", name, err)
	}
	select {
	case r := <-answer:
		if r.err != nil {
			return nil, fmt.Errorf("QMP command %q got no answer: %w", name, r.err)
		}
		return r.message, nil
	case <-ctx.Done():
		t.abandon(id)
		return nil, fmt.Errorf("QMP command %q got no answer: %w", name, ctx.Err())
	}
}

func (t *transport) register(answer chan reply) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return 0, t.err
	}
	t.lastID++
	t.calls[t.lastID] = answer
	return t.lastID, nil
}

// forget drops a call that QEMU has never seen.
func (t *transport) forget(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.calls, id)
}

// abandon keeps the id of a call known, because its reply may still come.
func (t *transport) abandon(id uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.calls[id]; ok {
		t.calls[id] = nil
	}
}

// send writes one command. When it returns an error, QEMU has not got the command, or the connection
// is at its end.
func (t *transport) send(ctx context.Context, id uint64, name string, body []byte, file *os.File) error {
	select {
	case t.writing <- struct{}{}:
		defer func() { <-t.writing }()
	case <-ctx.Done():
		return ctx.Err()
	case <-t.done:
		return t.Err()
	}
	line := fmt.Appendf(nil, `{"id":%d,`, id)
	line = append(append(line, body[1:]...), '\n')
	n, err := t.write(ctx, line, file)
	switch {
	case err == nil:
		t.log.sent(id, name, body)
		return nil
	case errors.Is(err, os.ErrDeadlineExceeded) && n == 0:
		return ctx.Err()
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("the monitor did not read a command to its end, so the connection was closed: %w", ctx.Err())
		_ = t.shut(err)
		return err
	}
	if hungUp(err) {
		t.blame(fmt.Errorf("the monitor closed the connection: %w", io.EOF))
	} else {
		t.blame(fmt.Errorf("cannot write to the monitor: %w", err))
	}
	_ = t.conn.SetReadDeadline(time.Now().Add(lastWords)) // it fails only on a closed connection
	<-t.done
	return t.Err()
}

// write is conn.Write that gives up when ctx ends.
func (t *transport) write(ctx context.Context, line []byte, file *os.File) (int, error) {
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = t.conn.SetWriteDeadline(time.Unix(1, 0)) // long ago; it fails only on a closed connection
	})
	n, err := writeWith(t.conn, line, file)
	if !stop() {
		<-interrupted
		_ = t.conn.SetWriteDeadline(time.Time{})
	}
	return n, err
}

// writeWith is conn.Write with a descriptor of file, unless that is nil. Only a unix socket takes one.
func writeWith(conn net.Conn, line []byte, file *os.File) (int, error) {
	if file == nil {
		return conn.Write(line)
	}
	// The descriptor travels with the first bytes.
	n, _, err := conn.(*net.UnixConn).WriteMsgUnix(line, unix.UnixRights(int(file.Fd())), nil)
	if err != nil || n == len(line) {
		return n, err
	}
	rest, err := conn.Write(line[n:])
	return n + rest, err
}
