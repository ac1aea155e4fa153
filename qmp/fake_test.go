package qmp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "fake"}, "capabilities": ["oob"]}}` + "\r\n"

// command is what the fake monitor was asked.
type command struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        json.RawMessage `json:"id"`
}

// fakeMonitor is QEMU's side of a connection. Its methods are for the goroutine of its script.
type fakeMonitor struct {
	t    *testing.T
	conn net.Conn
	in   *json.Decoder
}

// script plays a monitor; when it returns, the monitor falls silent and reads nothing any more.
type script func(m *fakeMonitor)

// start returns a client whose monitor plays the script.
func start(t *testing.T, o qmp.Options, play script) *qmp.Client {
	t.Helper()
	ours, theirs := net.Pipe()
	return startOn(t, o, ours, theirs, play)
}

func startOn(t *testing.T, o qmp.Options, ours, theirs net.Conn, play script) *qmp.Client {
	t.Helper()
	client := qmp.NewClient(ours, o)
	ended := make(chan struct{})
	t.Cleanup(func() {
		client.Close()
		theirs.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		play(&fakeMonitor{t: t, conn: theirs, in: json.NewDecoder(theirs)})
	}()
	return client
}

// connect is start with a monitor that has made its handshake.
func connect(t *testing.T, play script) *qmp.Client {
	t.Helper()
	client := start(t, qmp.Options{}, func(m *fakeMonitor) {
		m.handshake()
		play(m)
	})
	if err := client.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client
}

func (m *fakeMonitor) handshake() {
	m.say(greeting)
	m.reply(m.next(), `{}`)
}

// say sends bytes as they are. A client that has gone already is the test's business, not ours.
func (m *fakeMonitor) say(text string) { _, _ = m.conn.Write([]byte(text)) }

func (m *fakeMonitor) reply(c command, result string) {
	m.say(fmt.Sprintf(`{"return": %s, "id": %s}`+"\r\n", result, c.ID))
}

func (m *fakeMonitor) event(name string) { m.say(event(name)) }

// next waits for a command.
func (m *fakeMonitor) next() command {
	var c command
	if err := m.in.Decode(&c); err != nil {
		m.t.Errorf("the fake monitor got no command: %v", err)
		runtime.Goexit()
	}
	return c
}

// echo answers n commands with their own arguments.
func (m *fakeMonitor) echo(n int) {
	for range n {
		c := m.next()
		m.reply(c, string(c.Arguments))
	}
}

func event(name string) string {
	return fmt.Sprintf(`{"timestamp": {"seconds": 7, "microseconds": 9}, "event": %q}`+"\r\n", name)
}

// ask sends a command with the number and checks that the answer is the same number.
func ask(ctx context.Context, client *qmp.Client, number int) error {
	type body struct{ Number int }
	var got body
	if err := client.Execute(ctx, "echo", body{number}, &got); err != nil {
		return err
	}
	if got.Number != number {
		return fmt.Errorf("asked %d and got the answer to %d", number, got.Number)
	}
	return nil
}

// within is a context that ends soon, for what should not take long.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// big is a JSON string of n bytes.
func big(n int) string { return `"` + string(bytes.Repeat([]byte("x"), n-2)) + `"` }
