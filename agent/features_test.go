package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestMethodThatAnOldAgentDoesNotKnow(t *testing.T) {
	client := hostileGuest(t, answers(func(id uint64) string {
		return fmt.Sprintf(`{"id":%d,"error":{"code":"unknown-method","message":"what?"}}`+"\n", id)
	}))
	_, clock := client.SyncClock(t.Context())
	for err, want := range map[error]string{
		clock:                           "too old to have the guest's clock set: build the image anew",
		client.GrowDisk(t.Context(), 1): "too old to grow a file system: build the image anew",
		client.Sync(t.Context()):        `too old to do what is called "sync"`,
	} {
		if _, ok := errors.AsType[*UnsupportedError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
