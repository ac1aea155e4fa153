package qmp_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

func TestRunTakesAndReturnsWholeMessages(t *testing.T) {
	tests := map[string]struct{ command, reply string }{
		"plain":                  {`{"execute": "echo", "arguments": {"a": "<&>"}}`, `{"return":{"a":"<&>"}}`},
		"with an id":             {`{"execute": "echo", "id": {"n": [1, "x"]}, "arguments": {}}` + "\n", `{"return":{},"id":{"n":[1,"x"]}}`},
		"with a number as an id": {`{"id": 1, "execute": "echo", "arguments": {"b": 18446744073709551615}}`, `{"return":{"b":18446744073709551615},"id":1}`},
	}
	client := qmptest.Connect(t, func(m *qmptest.Monitor) { m.Echo(len(tests)) })
	for name, test := range tests {
		got, err := client.Run([]byte(test.command))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if equalJSON(t, got) != equalJSON(t, []byte(test.reply)) {
			t.Errorf("%s: got %s, want %s", name, got, test.reply)
		}
	}
}

// equalJSON makes two texts of the same value the same.
func equalJSON(t *testing.T, text []byte) string {
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	var v any
	if err := in.Decode(&v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestRunRefusesWhatIsNoCommand(t *testing.T) {
	client := qmptest.Connect(t, func(*qmptest.Monitor) {}) // which would never answer
	for _, text := range []string{"", "query-status", "{", "[]", "null", "{}", `{"execute": 1}`, `{"execute": ""}`, `{"execute":"stop"}{"execute":"cont"}`} {
		if _, err := client.Run([]byte(text)); err == nil || !strings.Contains(err.Error(), "a QMP command must") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestMonitorInterfaceHasADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := qmp.Options{Timeout: 5 * time.Second}
		silent := qmptest.Start(t, o, func(*qmptest.Monitor) {})
		begun := time.Now()
		if err := silent.Connect(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("connect: %v", err)
		}
		stuck := qmptest.Start(t, o, func(m *qmptest.Monitor) { m.Handshake(qmptest.Greeting); m.Next() })
		if err := stuck.Connect(); err != nil {
			t.Fatal(err)
		}
		if _, err := stuck.Run([]byte(`{"execute":"stop"}`)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("run: %v", err)
		}
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("took %v", took)
		}
		if err := stuck.Disconnect(); err != nil {
			t.Error(err)
		}
	})
}

func TestTranscriptHasNamesAndNoValues(t *testing.T) {
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := qmptest.Start(t, qmp.Options{Logger: log}, func(m *qmptest.Monitor) {
		m.Handshake(qmptest.Greeting)
		m.Say(`{"event": "SPICE_INITIALIZED", "data": {"auth": "hunter2"}, "timestamp": {"seconds": 1, "microseconds": 1}}`)
		c := m.Next()
		m.Reply(c, string(c.Arguments))
		m.Say(fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "hunter2 is too short"}, "id": %s}`, m.Next().ID))
		m.Conn.Close()
	})
	if err := client.Connect(); err != nil {
		t.Fatal(err)
	}
	secret := map[string]string{"password": "hunter2", "protocol": "vnc"}
	for range 2 {
		_ = client.Execute(t.Context(), "set_password", secret, nil)
	}
	<-client.Done()
	for _, want := range []string{"10.0.2", "set_password", "[password protocol]", "SPICE_INITIALIZED", "GenericError", "EOF"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the transcript lacks %q", want)
		}
	}
	if strings.Contains(text.String(), "hunter2") {
		t.Errorf("the transcript has the secret:\n%s", &text)
	}
}
