package qmp_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

const busy = "Hot-unplug failed: guest is busy (power indicator blinking)"

// A device that was just plugged in cannot be taken back at once from a slot of PCI Express.
func TestUnplugAsksAGuestThatIsBusyAgain(t *testing.T) {
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		for range 2 {
			m.Refuse(m.Next(), busy)
		}
		c := m.Next()
		if c.Execute != "device_del" {
			t.Errorf("the guest is asked by %s", c.Execute)
		}
		m.Reply(c, `{}`)
		m.Say(`{"event": "DEVICE_DELETED", "data": {"device": "share"}, "timestamp": {"seconds": 1, "microseconds": 0}}` + "\r\n")
	})
	if err := client.Unplug(t.Context(), "share"); err != nil {
		t.Fatal(err)
	}
}

func TestUnplugEndsWithItsContext(t *testing.T) {
	late := errors.New("it is too late")
	ctx, cancel := context.WithCancelCause(t.Context())
	client := qmptest.Connect(t, func(m *qmptest.Monitor) {
		m.Refuse(m.Next(), busy)
		m.Next()
		cancel(late)
	})
	if err := client.Unplug(ctx, "share"); !errors.Is(err, late) || !strings.Contains(err.Error(), busy) {
		t.Fatalf("it ends with %v", err)
	}
}

func TestUnplugTakesNoForAnAnswer(t *testing.T) {
	client := qmptest.Connect(t, func(m *qmptest.Monitor) { m.Refuse(m.Next(), "Bus does not support hotplugging") })
	if err := client.Unplug(t.Context(), "share"); err == nil || !strings.Contains(err.Error(), "Bus does not support") {
		t.Fatalf("it ends with %v", err)
	}
}
