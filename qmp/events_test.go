package qmp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

// names receives until the channel is closed.
func names(events <-chan qmp.Event) []string {
	var got []string
	for e := range events {
		got = append(got, e.Event)
	}
	return got
}

// subscribe fails the test instead of returning an error.
func subscribe(ctx context.Context, t *testing.T, client *qmp.Client) <-chan qmp.Event {
	t.Helper()
	events, err := client.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func TestEventHasItsDataAndTime(t *testing.T) {
	resume := make(chan struct{})
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		<-resume
		m.Say(`{"timestamp": {"seconds": 1795474755, "microseconds": 283300}, "event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}`)
	})
	one, two := subscribe(t.Context(), t, client), subscribe(t.Context(), t, client)
	close(resume)
	for _, e := range []qmp.Event{<-one, <-two} {
		if e.Event != "SHUTDOWN" || e.Data["reason"] != "host-qmp-quit" || e.Timestamp.Seconds != 1795474755 || e.Timestamp.Microseconds != 283300 {
			t.Errorf("got %+v", e)
		}
		e.Data["reason"] = "mine" // each subscriber has its own
	}
}

func TestEventsBeforeTheHandshakeReachSubscribers(t *testing.T) {
	resume := make(chan struct{})
	client := qmptest.Start(t, qmp.Options{}, func(m *qmptest.Monitor) {
		<-resume
		m.Say(qmptest.Greeting)
		m.Event("RESUME")
		c := m.Next()
		m.Event("STOP")
		m.Reply(c, `{}`)
		m.Conn.Close()
	})
	events := subscribe(t.Context(), t, client)
	close(resume)
	if err := client.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(names(events)); got != "[RESUME STOP]" {
		t.Errorf("got %s", got)
	}
}

// A subscriber that never reads holds up neither commands nor other subscribers, and loses nothing.
func TestSlowSubscriberHoldsUpNobody(t *testing.T) {
	const rounds = 500
	resume := make(chan struct{})
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		<-resume
		for i := range rounds {
			m.Event(fmt.Sprint("E", i))
			m.Echo(1)
		}
		m.Conn.Close()
	})
	slow, quick := subscribe(t.Context(), t, client), subscribe(t.Context(), t, client)
	close(resume)
	for i := range rounds {
		if err := ask(t.Context(), client, i); err != nil {
			t.Fatal(err)
		}
		if e := <-quick; e.Event != fmt.Sprint("E", i) {
			t.Fatalf("round %d got %s", i, e.Event)
		}
	}
	<-client.Done()
	got := names(slow)
	if len(got) != rounds || got[0] != "E0" || got[rounds-1] != fmt.Sprint("E", rounds-1) {
		t.Errorf("got %d events", len(got))
	}
	if !errors.Is(client.Err(), io.EOF) {
		t.Errorf("the connection ended with %v", client.Err())
	}
}

func TestUnsubscribingEndsOneChannelOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resume := make(chan struct{})
		client := qmptest.Connect(t, func(m *qmptest.Monitor) {
			<-resume
			m.Event("ONE")
			<-resume
			m.Event("TWO")
		})
		ctx, cancel := context.WithCancel(t.Context())
		leaving, staying := subscribe(ctx, t, client), subscribe(t.Context(), t, client)
		resume <- struct{}{}
		synctest.Wait() // ONE is on offer to both
		cancel()
		for range leaving { // ends, whether or not ONE was still received
		}
		close(resume)
		if one, two := <-staying, <-staying; one.Event != "ONE" || two.Event != "TWO" {
			t.Errorf("got %s and %s", one.Event, two.Event)
		}
	})
}

// The bubble of synctest fails if anything of the client is left running.
func TestCloseEndsSubscriptionsThatNobodyReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resume := make(chan struct{})
		client := qmptest.Connect(t, func(m *qmptest.Monitor) {
			<-resume
			for range 10 {
				m.Event("STOP")
			}
		})
		idle := subscribe(context.Background(), t, client)
		subscribe(context.Background(), t, client)
		close(resume)
		synctest.Wait()
		client.Close()
		if got := names(idle); len(got) > 1 {
			t.Errorf("got %v after Close", got)
		}
	})
}

func TestSubscriberThatNeverReadsIsCutOff(t *testing.T) {
	const limit = 1 << 16
	resume := make(chan struct{})
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		<-resume
		m.Say(strings.Repeat(qmptest.Event("E"), limit+10))
		m.Echo(1)
	})
	stuck := subscribe(t.Context(), t, client)
	close(resume)
	if err := ask(t.Context(), client, 1); err != nil {
		t.Fatal(err)
	}
	// What was queued until then is still there, and one more may have been on its way already.
	if got := len(names(stuck)); got != limit && got != limit+1 {
		t.Errorf("got %d events", got)
	}
	if err := client.Err(); err != nil {
		t.Errorf("the connection suffered: %v", err)
	}
}

// A real socket reports a peer that died in more ways than a pipe: with and without unread data,
// while it is written to and while it is read.
func TestDyingMonitorIsEOFAndItsLastEventArrives(t *testing.T) {
	for _, reads := range []bool{true, false} {
		t.Run(fmt.Sprintf("reads=%t", reads), func(t *testing.T) {
			ours, theirs := socketPair(t)
			died := make(chan struct{})
			resume := make(chan struct{})
			client := qmptest.StartOn(t, qmp.Options{}, ours, theirs, func(m *qmptest.Monitor) {
				defer close(died)
				m.Handshake(qmptest.Greeting)
				<-resume
				if reads {
					m.Next()
				}
				m.Event("SHUTDOWN")
				m.Conn.Close()
			})
			if err := client.Handshake(t.Context()); err != nil {
				t.Fatal(err)
			}
			events := subscribe(t.Context(), t, client)
			close(resume)
			if err := client.Stop(t.Context()); !errors.Is(err, io.EOF) {
				t.Errorf("a command at the monitor's end: %v", err)
			}
			<-died
			if err := client.Stop(t.Context()); !errors.Is(err, io.EOF) {
				t.Errorf("a command after it: %v", err)
			}
			if got := fmt.Sprint(names(events)); got != "[SHUTDOWN]" {
				t.Errorf("got %s", got)
			}
		})
	}
}

// socketPair returns two connected stream sockets.
func socketPair(t *testing.T) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ours, err := net.DialTimeout("unix", l.Addr().String(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return ours, theirs
}
