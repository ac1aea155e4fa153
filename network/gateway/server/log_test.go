package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// written are the entries of a log.
func written(t *testing.T, log *bytes.Buffer) (entries []gateway.Entry) {
	t.Helper()
	for line := range strings.Lines(log.String()) {
		var e gateway.Entry
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		entries = append(entries, e)
	}
	log.Reset()
	return entries
}

func TestEachConnectionIsWrittenDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newEventLog(slog.New(slog.NewJSONHandler(&out, nil)))
		began := time.Now().UTC()
		l.note(stack.Event{
			Time: began, Proto: "tcp", Name: "api.example.com", Addr: netip.MustParseAddrPort("198.18.0.1:443"),
			Sent: 10, Received: 20, Duration: time.Second, Allowed: true, Rule: "*.example.com",
		})
		l.note(stack.Event{Time: began, Proto: "dns", Name: "a\x1b[2J\n \\b\xff", Rule: "bad-name"})
		want := []gateway.Entry{
			{
				Time: began, Level: "INFO", Message: "connection", Proto: "tcp", Name: "api.example.com", Address: "198.18.0.1", Port: 443,
				Sent: 10, Received: 20, Duration: time.Second, Decision: "allowed", Rule: "*.example.com",
			},
			{Time: began, Level: "INFO", Message: "connection", Proto: "dns", Name: `a\027[2J\010\032\092b\255`, Decision: "refused", Rule: "bad-name"},
		}
		got := written(t, &out)
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("it is written\n%+v, want\n%+v", got, want)
			}
		}
		time.Sleep(2 * logWindow)
	})
}

func TestRefusalsThatAreTheSameAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newEventLog(slog.New(slog.NewJSONHandler(&out, nil)))
		for range 1_000_000 {
			l.note(stack.Event{Proto: "tcp", Addr: netip.MustParseAddrPort("10.0.0.1:22"), Rule: "private"})
		}
		l.note(stack.Event{Proto: "tcp", Addr: netip.MustParseAddrPort("10.0.0.2:22"), Rule: "private"})
		time.Sleep(logWindow + 1)
		synctest.Wait()
		got := written(t, &out)
		if len(got) != 3 || got[0].Count != 0 || got[1].Address != "10.0.0.2" || got[2].Address != "10.0.0.1" || got[2].Count != 999_999 {
			t.Errorf("it is written %+v", got)
		}
	})
}

func TestAFloodDoesNotDrownTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		l := newEventLog(slog.New(slog.NewJSONHandler(&out, nil)))
		flood := func() (lines, count int) {
			for i := range 10_000 {
				l.note(stack.Event{Proto: "dns", Name: fmt.Sprintf("%d.example", i), Rule: "not-allowed", Allowed: i%2 == 0})
			}
			time.Sleep(logWindow + 1)
			synctest.Wait()
			got := written(t, &out)
			if last := got[len(got)-1]; last.Message == gateway.MessageLeftOut {
				return len(got) - 1, last.Count
			}
			return len(got), 0
		}
		for _, want := range []int{256, 128, 64, 32, 16, 8, 8} {
			if lines, left := flood(); lines != want || lines+left != 10_000 {
				t.Errorf("%d lines are written and %d left out, want %d", lines, left, want)
			}
		}
		// A connection that was made does not hide behind it.
		made := netip.MustParseAddrPort("93.184.215.14:443")
		for i := range 10_000 {
			l.note(stack.Event{Proto: "tcp", Addr: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), uint16(i)), Rule: "private"})
		}
		l.note(stack.Event{Proto: "tcp", Addr: made, Allowed: true, Rule: "public"})
		time.Sleep(logWindow + 1)
		synctest.Wait()
		if !slices.ContainsFunc(written(t, &out), func(e gateway.Entry) bool { return e.Address == made.Addr().String() }) {
			t.Error("a connection that was made is not written down")
		}
		// After a window of peace all is written again.
		l.note(stack.Event{Proto: "dns", Name: "calm.example", Allowed: true})
		time.Sleep(logWindow + 1)
		synctest.Wait()
		written(t, &out)
		if lines, _ := flood(); lines != mostEntries {
			t.Errorf("%d lines are written", lines)
		}
	})
}
