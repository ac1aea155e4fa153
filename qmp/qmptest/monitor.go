package qmptest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"

	"github.com/sourcery-zone/sandbox/qmp"
)

// Greeting is the first line of a QEMU of today.
const Greeting = `{"QMP": {"version": {"qemu": {"micro": 2, "minor": 0, "major": 10}, "package": "fake"}, "capabilities": ["oob"]}}` + "\r\n"

// GreetingOf is the first line of a QEMU of some version.
func GreetingOf(major, minor, micro int) string {
	return fmt.Sprintf(`{"QMP": {"version": {"qemu": {"micro": %d, "minor": %d, "major": %d}, "package": "fake"}, "capabilities": ["oob"]}}`+"\r\n", micro, minor, major)
}

// Event is the line by which QEMU tells of an event that has no data.
func Event(name string) string {
	return fmt.Sprintf(`{"timestamp": {"seconds": 7, "microseconds": 9}, "event": %q}`+"\r\n", name)
}

// Command is what a monitor was asked.
type Command struct {
	Execute   string          `json:"execute"`
	Arguments json.RawMessage `json:"arguments"`
	ID        json.RawMessage `json:"id"`
}

// Monitor is QEMU's end of a connection. Its methods are for the goroutine of its
// script.
type Monitor struct {
	Conn net.Conn

	t  testing.TB
	in *json.Decoder
}

// Start returns a client whose monitor plays the script, until the test ends.
// When the script returns, the monitor falls silent and reads nothing any more.
// The client has not made its handshake.
func Start(t testing.TB, o qmp.Options, script func(*Monitor)) *qmp.Client {
	t.Helper()
	ours, theirs := net.Pipe()
	return StartOn(t, o, ours, theirs, script)
}

// StartOn is [Start] on the two ends of a connection, which it takes over.
func StartOn(t testing.TB, o qmp.Options, ours, theirs net.Conn, script func(*Monitor)) *qmp.Client {
	t.Helper()
	client := qmp.NewClient(ours, o)
	Play(t, theirs, script)
	t.Cleanup(func() { client.Close() })
	return client
}

// Play is [StartOn] for a client that somebody else has.
func Play(t testing.TB, theirs net.Conn, script func(*Monitor)) {
	ended := make(chan struct{})
	t.Cleanup(func() {
		theirs.Close()
		<-ended
	})
	go func() {
		defer close(ended)
		script(&Monitor{Conn: theirs, t: t, in: json.NewDecoder(theirs)})
	}()
}

// Connect is [Start] with a client and a monitor that have made their handshake.
func Connect(t testing.TB, script func(*Monitor)) *qmp.Client {
	t.Helper()
	client := Start(t, qmp.Options{}, func(m *Monitor) {
		m.Handshake(Greeting)
		script(m)
	})
	if err := client.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client
}

// Handshake greets the client, and grants it what it asks for.
func (m *Monitor) Handshake(greeting string) {
	m.Say(greeting)
	m.Reply(m.Next(), `{}`)
}

// Say sends text as it is. A client that has gone already is the test's business,
// and not the monitor's.
func (m *Monitor) Say(text string) { _, _ = io.WriteString(m.Conn, text) }

// Event tells of an event that has no data.
func (m *Monitor) Event(name string) { m.Say(Event(name)) }

// Reply answers a command with a result, which is JSON.
func (m *Monitor) Reply(c Command, result string) {
	m.Say(fmt.Sprintf(`{"return": %s, "id": %s}`+"\r\n", result, c.ID))
}

// Refuse answers a command with an error, of the class of nearly all that QEMU has.
func (m *Monitor) Refuse(c Command, reason string) {
	desc, err := json.Marshal(reason)
	if err != nil {
		m.t.Error(err)
	}
	m.Say(fmt.Sprintf(`{"error": {"class": "GenericError", "desc": %s}, "id": %s}`+"\r\n", desc, c.ID))
}

// Next waits for a command. Without one, the test has failed, and the script ends.
func (m *Monitor) Next() Command {
	var c Command
	if err := m.in.Decode(&c); err != nil {
		m.t.Errorf("the monitor got no command: %v", err)
		runtime.Goexit()
	}
	return c
}

// Echo answers n commands with their own arguments.
func (m *Monitor) Echo(n int) {
	for range n {
		c := m.Next()
		m.Reply(c, string(c.Arguments))
	}
}

// Serve answers commands until the client has gone: with the result, which is
// JSON, or with the text of the error.
func (m *Monitor) Serve(answer func(Command) (result string, err error)) {
	for {
		var c Command
		if err := m.in.Decode(&c); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				m.t.Errorf("the monitor cannot read its next command: %v", err)
			}
			return
		}
		result, err := answer(c)
		if err != nil {
			m.Refuse(c, err.Error())
			continue
		}
		m.Reply(c, result)
	}
}
