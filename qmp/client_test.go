package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

func TestHandshake(t *testing.T) {
	tests := map[string]struct {
		play func(*qmptest.Monitor)
		is   error  // nil for success
		text string // part of the error's text
	}{
		"ordinary": {play: func(m *qmptest.Monitor) { m.Handshake(qmptest.Greeting) }},
		"greeting in pieces": {play: func(m *qmptest.Monitor) {
			for _, b := range []byte(qmptest.Greeting) {
				m.Say(string(b))
			}
			m.Reply(m.Next(), `{}`)
		}},
		"events around the reply": {play: func(m *qmptest.Monitor) {
			m.Say(qmptest.Greeting)
			m.Event("RESUME")
			c := m.Next()
			m.Event("STOP")
			m.Say(qmptest.Event("RESUME") + fmt.Sprintf(`{"return": {}, "id": %s}`, c.ID) + qmptest.Event("STOP"))
		}},
		"silence": {
			play: func(*qmptest.Monitor) {},
			is:   context.DeadlineExceeded, text: "one client at a time",
		},
		"silence after the greeting": {
			play: func(m *qmptest.Monitor) { m.Say(qmptest.Greeting); m.Next() },
			is:   context.DeadlineExceeded, text: "qmp_capabilities",
		},
		"close at once": {
			play: func(m *qmptest.Monitor) { m.Conn.Close() },
			is:   io.EOF, text: "no QMP greeting",
		},
		"close after the greeting": {
			play: func(m *qmptest.Monitor) { m.Say(qmptest.Greeting); m.Conn.Close() },
			is:   io.EOF, text: "qmp_capabilities",
		},
		"the human monitor": {
			play: func(m *qmptest.Monitor) { m.Say("QEMU 10.0.2 monitor - type 'help' for more information\r\n(qemu) ") },
			is:   qmp.ErrProtocol, text: "QEMU 10.0.2 monitor",
		},
		"another protocol in JSON": {
			play: func(m *qmptest.Monitor) { m.Say(`{"jsonrpc": "2.0", "method": "hello"}`) },
			is:   qmp.ErrProtocol, text: "neither a greeting",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := qmptest.Start(t, qmp.Options{}, test.play)
				err := client.Handshake(within(t, time.Minute))
				if !errors.Is(err, test.is) {
					t.Fatalf("got %v, want %v", err, test.is)
				}
				if again := client.Handshake(t.Context()); again != err {
					t.Errorf("a second handshake returned %v, not %v", again, err)
				}
				if test.is == nil {
					if got := client.Greeting().Version.String(); got != "10.0.2" {
						t.Errorf("version %s", got)
					}
					return
				}
				if !strings.Contains(err.Error(), test.text) {
					t.Errorf("%q does not say %q", err, test.text)
				}
				<-client.Done()
				if !errors.Is(client.Err(), test.is) {
					t.Errorf("the connection ended with %v", client.Err())
				}
			})
		})
	}
}

func TestHandshakeReportsARefusal(t *testing.T) {
	client := qmptest.Start(t, qmp.Options{}, func(m *qmptest.Monitor) {
		m.Say(qmptest.Greeting)
		m.Say(fmt.Sprintf(`{"error": {"class": "GenericError", "desc": "not today"}, "id": %s}`, m.Next().ID))
	})
	if err := client.Connect(); !qmp.IsClass(err, qmp.ClassGenericError) {
		t.Fatal(err)
	}
}

func TestCommandsNeedAHandshake(t *testing.T) {
	client := qmptest.Start(t, qmp.Options{}, func(*qmptest.Monitor) {})
	if err := client.Cont(t.Context()); err == nil || !strings.Contains(err.Error(), "call Handshake") {
		t.Errorf("got %v", err)
	}
	if _, err := client.Run([]byte(`{"execute":"cont"}`)); err == nil || !strings.Contains(err.Error(), "call Handshake") {
		t.Errorf("got %v", err)
	}
}

// Whatever a monitor does wrong, a call in flight fails at once and with the reason.
func TestMisbehaviourEndsTheConnection(t *testing.T) {
	tests := map[string]misbehaviour{
		"close": {
			func(m *qmptest.Monitor, _ qmptest.Command) { m.Conn.Close() },
			io.EOF, "closed the connection",
		},
		"close within a message": {
			func(m *qmptest.Monitor, _ qmptest.Command) { m.Say(`{"return": {"status": "run`); m.Conn.Close() },
			io.ErrUnexpectedEOF, "in the middle of a message",
		},
		"close after an event": {
			func(m *qmptest.Monitor, _ qmptest.Command) { m.Event("SHUTDOWN"); m.Conn.Close() },
			io.EOF, "closed the connection",
		},
		"garbage":           says("\x00\xff warning: TCG\n", "which is no message"),
		"a damaged message": says(`{"return": {"key": "hunter2"},, "id": 2}`, "a message is damaged"),
		"a number":          says(`42 `, "wrong form"),
		"an array":          says(`[{"event": "STOP"}]`, "wrong form"),
		"null":              says(`null `, "neither a greeting"),
		"an empty object":   says(`{}`, "neither a greeting"),
		"a second greeting": says(qmptest.Greeting, "second time"),
		"a reply without an id": says(
			`{"return": {}}`, "was not sent"),
		"a reply with a strange id": says(
			`{"return": {}, "id": 99}`, `id "99"`),
		"a reply with a string as its id": says(
			`{"return": {}, "id": "2"}`, "was not sent"),
		"an answer that was given before": says(
			`{"return": {}, "id": 1}`, "was not sent"),
		"a refusal without an id": says(
			`{"error": {"class": "GenericError", "desc": "JSON parse error, stray ']'"}}`, "stray ']'"),
		"an event with odd data": says(
			`{"event": "STOP", "data": 1, "timestamp": {"seconds": 1, "microseconds": 1}}`, "no object"),
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := qmptest.Connect(t, func(m *qmptest.Monitor) { test.answer(m, m.Next()) })
				events, err := client.Events(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				_, err = client.Status(within(t, time.Minute))
				if !errors.Is(err, test.is) || !strings.Contains(err.Error(), test.text) {
					t.Fatalf("got %v, want %v with %q", err, test.is, test.text)
				}
				if strings.Contains(err.Error(), "hunter2") {
					t.Errorf("the error quotes a reply: %v", err)
				}
				<-client.Done()
				if !errors.Is(client.Err(), test.is) {
					t.Errorf("the connection ended with %v", client.Err())
				}
				for range events { // until it is closed
				}
				if err := client.Cont(t.Context()); !errors.Is(err, test.is) || !strings.Contains(err.Error(), "not sent") {
					t.Errorf("a later command failed with %v", err)
				}
				if _, err := client.Events(t.Context()); !errors.Is(err, test.is) {
					t.Errorf("a later subscription failed with %v", err)
				}
			})
		})
	}
}

// misbehaviour is an answer to a command, and the error that must come of it.
type misbehaviour struct {
	answer func(m *qmptest.Monitor, c qmptest.Command)
	is     error
	text   string
}

// says is the misbehaviour of sending text.
func says(text, want string) misbehaviour {
	return misbehaviour{func(m *qmptest.Monitor, _ qmptest.Command) { m.Say(text) }, qmp.ErrProtocol, want}
}

func TestStatusIsReadHoweverTheReplyArrives(t *testing.T) {
	const body = `{"status": "running", "running": true}`
	tests := map[string]func(*qmptest.Monitor){
		"in one piece": func(m *qmptest.Monitor) { m.Reply(m.Next(), body) },
		"byte by byte": func(m *qmptest.Monitor) {
			for _, b := range fmt.Appendf(nil, `{"return": %s, "id": %s}`, body, m.Next().ID) {
				m.Say(string(b))
			}
		},
		"on many lines": func(m *qmptest.Monitor) {
			m.Say(fmt.Sprintf("{\r\n    \"return\": {\n \"status\": \"running\",\n\n\"running\": true\n},\n\"id\":\n%s}\n", m.Next().ID))
		},
		"with events in the same read": func(m *qmptest.Monitor) {
			m.Say(qmptest.Event("STOP") + fmt.Sprintf(`{"return": %s, "id": %s}`, body, m.Next().ID) + qmptest.Event("RESUME"))
		},
		"after many events": func(m *qmptest.Monitor) {
			c := m.Next()
			for range 1000 {
				m.Event("RTC_CHANGE")
			}
			m.Reply(c, body)
		},
	}
	for name, play := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := qmptest.Connect(t, play)
				if _, err := client.Events(within(t, time.Hour)); err != nil { // nobody reads it
					t.Fatal(err)
				}
				got, err := client.Status(within(t, time.Minute))
				if err != nil || got != (qmp.Status{State: qmp.StateRunning, Running: true}) {
					t.Errorf("got %+v, %v", got, err)
				}
			})
		})
	}
}

func TestRepliesOfAnySize(t *testing.T) {
	const size = 3 << 20
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		m.Reply(m.Next(), big(size))
		m.Echo(1)
	})
	var got string
	if err := client.Execute(t.Context(), "query-qmp-schema", nil, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != size-2 {
		t.Errorf("got %d bytes", len(got))
	}
	if err := ask(t.Context(), client, 1); err != nil {
		t.Errorf("the command after it: %v", err)
	}
}

func TestRepliesFindTheirCallsInAnyOrder(t *testing.T) {
	const calls = 50
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		var asked []qmptest.Command
		for range calls {
			asked = append(asked, m.Next())
		}
		for i := range asked {
			c := asked[len(asked)-1-i]
			m.Event("STOP")
			m.Reply(c, string(c.Arguments))
		}
	})
	var wg sync.WaitGroup
	for i := range calls {
		wg.Go(func() {
			if err := ask(t.Context(), client, i); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestLateReplyDoesNotAnswerTheNextCommand(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := qmptest.Connect(t, func(m *qmptest.Monitor) {
			late := m.Next()
			c := m.Next()
			m.Reply(late, `{"Number": 1}`)
			m.Reply(c, string(c.Arguments))
		})
		if err := ask(within(t, time.Second), client, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if err := ask(t.Context(), client, 2); err != nil {
			t.Error(err)
		}
	})
}

func TestDeadlineHoldsWhenTheMonitorReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resume := make(chan struct{})
		client := qmptest.Connect(t, func(m *qmptest.Monitor) {
			<-resume
			m.Echo(1)
		})
		first := make(chan error, 1)
		go func() { first <- ask(within(t, time.Minute), client, 1) }()
		synctest.Wait() // it is writing now
		if err := ask(within(t, time.Second), client, 2); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a command that waits for its turn: %v", err)
		}
		if err := <-first; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a command that is being written: %v", err)
		}
		close(resume)
		if err := ask(t.Context(), client, 3); err != nil {
			t.Errorf("the connection should have survived, because nothing was written: %v", err)
		}
	})
}

func TestHalfWrittenCommandEndsTheConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := qmptest.Connect(t, func(m *qmptest.Monitor) { _, _ = m.Conn.Read(make([]byte, 10)) })
		err := ask(within(t, time.Second), client, 1)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "did not read") {
			t.Errorf("got %v", err)
		}
		<-client.Done()
	})
}

func TestEndedContextSendsNothing(t *testing.T) {
	client := qmptest.Connect(t, func(m *qmptest.Monitor) { m.Echo(1) })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := ask(ctx, client, 1); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "not sent") {
		t.Errorf("got %v", err)
	}
	if err := ask(t.Context(), client, 2); err != nil {
		t.Error(err)
	}
}

func TestRefusalIsTyped(t *testing.T) {
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		c := m.Next()
		m.Say(fmt.Sprintf(`{"id": %s, "error": {"class": "DeviceNotFound", "desc": "Device 'x' not found", "more": 1}}`, c.ID))
		m.Echo(1)
	})
	err := client.Execute(t.Context(), "device_del", map[string]string{"id": "x"}, nil)
	var refused *qmp.Error
	if !errors.As(err, &refused) || *refused != (qmp.Error{Class: qmp.ClassDeviceNotFound, Desc: "Device 'x' not found", Command: "device_del"}) {
		t.Fatalf("got %#v", err)
	}
	if !qmp.IsClass(fmt.Errorf("wrapped: %w", err), qmp.ClassDeviceNotFound) || qmp.IsClass(err, qmp.ClassGenericError) {
		t.Error("IsClass is wrong")
	}
	if err := ask(t.Context(), client, 1); err != nil {
		t.Errorf("the command after it: %v", err)
	}
}

func TestResultOfAnotherFormIsAnErrorOfTheCallOnly(t *testing.T) {
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		m.Reply(m.Next(), `[]`)
		m.Reply(m.Next(), `null`)
		m.Echo(1)
	})
	if _, err := client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("got %v", err)
	}
	if err := client.Cont(t.Context()); err != nil {
		t.Errorf("a result of null: %v", err)
	}
	if err := client.Execute(t.Context(), "x", func() {}, nil); err == nil || !strings.Contains(err.Error(), "cannot encode") {
		t.Errorf("got %v", err)
	}
	if err := ask(t.Context(), client, 1); err != nil {
		t.Error(err)
	}
}

func TestQuitAcceptsAnEndInPlaceOfAnAnswer(t *testing.T) {
	tests := map[string]func(*qmptest.Monitor){
		"answer":      func(m *qmptest.Monitor) { m.Reply(m.Next(), `{}`); m.Conn.Close() },
		"end":         func(m *qmptest.Monitor) { m.Next(); m.Conn.Close() },
		"half answer": func(m *qmptest.Monitor) { m.Next(); m.Say(`{"ret`); m.Conn.Close() },
		"gone before": func(m *qmptest.Monitor) { m.Conn.Close() },
	}
	for name, play := range tests {
		t.Run(name, func(t *testing.T) {
			if err := qmptest.Connect(t, play).Quit(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCloseFailsCallsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := qmptest.Connect(t, func(m *qmptest.Monitor) { m.Next() })
		called := make(chan error, 1)
		go func() { called <- client.Stop(t.Context()) }()
		synctest.Wait()
		for range 2 {
			if err := client.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if err := <-called; !errors.Is(err, net.ErrClosed) {
			t.Errorf("the call in flight: %v", err)
		}
		if !errors.Is(client.Err(), net.ErrClosed) {
			t.Errorf("the connection: %v", client.Err())
		}
	})
}

// A QEMU that its guest took over may say something without an end.
func TestAMessageWithoutAnEndEndsTheConnection(t *testing.T) {
	client := qmptest.Start(t, qmp.Options{}, func(m *qmptest.Monitor) {
		m.Say(`{"QMP": "`)
		for piece := strings.Repeat("x", 1<<20); ; {
			if _, err := io.WriteString(m.Conn, piece); err != nil {
				return
			}
		}
	})
	<-client.Done()
	if err := client.Err(); !errors.Is(err, qmp.ErrProtocol) || !strings.Contains(err.Error(), "more than 16777216 bytes") {
		t.Errorf("got %v", err)
	}
}
