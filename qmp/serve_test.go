package qmp_test

import (
	"encoding/json"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
)

// serveQEMU returns a client of a server before the given QEMU.
func serveQEMU(t *testing.T, backend qmp.Backend, o qmp.ServeOptions) (net.Conn, chan error) {
	t.Helper()
	ours, theirs := net.Pipe()
	for _, conn := range []net.Conn{ours, theirs} { // silence is a failure, not a wait
		if err := conn.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- qmp.Serve(t.Context(), theirs, backend, o) }()
	t.Cleanup(func() { ours.Close() })
	return ours, ended
}

// Several clients with ids of their own share one monitor, and each gets all events.
func TestServedClientsShareOneMonitor(t *testing.T) {
	ctx, backend, _ := connectQEMU(t)
	var clients []*qmp.Client
	for range 3 {
		conn, ended := serveQEMU(t, backend, qmp.ServeOptions{})
		client := qmp.NewClient(conn, qmp.Options{})
		t.Cleanup(func() {
			client.Close()
			if err := <-ended; err != nil {
				t.Errorf("the server ended with %v", err)
			}
		})
		if err := client.Handshake(ctx); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, client)
	}
	var streams []<-chan qmp.Event
	for _, client := range clients {
		if client.Greeting().Version != backend.Greeting().Version {
			t.Errorf("greeted with %v", client.Greeting())
		}
		streams = append(streams, subscribe(ctx, t, client))
	}
	if err := clients[0].Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, events := range streams {
		if e := <-events; e.Event != "STOP" || e.Timestamp.Seconds == 0 || e.Data != nil {
			t.Errorf("got %+v", e)
		}
	}
	if s, err := clients[1].Status(ctx); err != nil || s.State != qmp.StatePaused {
		t.Errorf("got %v, %v", s, err)
	}
	if err := clients[2].Execute(ctx, "device_del", map[string]string{"id": "x"}, nil); !qmp.IsClass(err, qmp.ClassDeviceNotFound) {
		t.Errorf("got %v", err)
	}
	clients[0].Close()
	if err := clients[1].Cont(ctx); err != nil {
		t.Errorf("after another has left: %v", err)
	}
	if err := backend.Quit(ctx); err != nil {
		t.Fatal(err)
	}
	<-clients[1].Done()
}

func TestServedConversationIsQEMUs(t *testing.T) {
	_, backend, _ := connectQEMU(t)
	refuse := func(command string) error {
		if command == "quit" {
			return errors.New("quit is not for you")
		}
		return nil
	}
	conn, _ := serveQEMU(t, backend, qmp.ServeOptions{Allow: refuse})
	in := json.NewDecoder(conn)
	var greeting struct{ QMP *qmp.Greeting }
	if err := in.Decode(&greeting); err != nil || greeting.QMP == nil || greeting.QMP.Version.QEMU.Major == 0 {
		t.Fatalf("greeting: %+v, %v", greeting, err)
	}
	for _, step := range []struct{ say, class, id string }{
		{`{"execute": "query-status", "id": "early"}`, "CommandNotFound", `"early"`},
		{`{"execute": "qmp_capabilities"}`, "", ""},
		{`{"execute": "qmp_capabilities", "id": 2}`, "CommandNotFound", "2"},
		{`{"execute": "query-status", "id": {"a": 1}}`, "", `{"a":1}`},
		{`{"execute": "nonsense"}`, "CommandNotFound", ""},
		{`{"execute": "quit", "id": 7}`, "GenericError", "7"},
		{`{"no": "command"}`, "GenericError", ""},
	} {
		if _, err := conn.Write([]byte(step.say)); err != nil {
			t.Fatal(err)
		}
		var answer struct {
			Return json.RawMessage
			Error  struct{ Class, Desc string }
			ID     json.RawMessage
		}
		if err := in.Decode(&answer); err != nil {
			t.Fatalf("%s: %v", step.say, err)
		}
		if answer.Error.Class != step.class || string(answer.ID) != step.id || (answer.Return == nil) == (step.class == "") {
			t.Errorf("%s: got %+v, id %s", step.say, answer, answer.ID)
		}
	}
}
