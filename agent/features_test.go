package agent

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestFeaturesAreAskedForBeforeTheyAreReliedOn(t *testing.T) {
	const unheard Feature = "a mask"
	for name, tt := range map[string]struct {
		status  string
		feature Feature
		old     bool
	}{
		"one of the list":                   {`{"features":["clock","copy"]}`, FeatureCopy, false},
		"one that is not in the list":       {`{"features":["clock"]}`, FeatureCopy, true},
		"one of a list that is empty":       {`{"features":[]}`, FeatureClock, true},
		"one from before there was a list":  {`{}`, FeatureCopy, false},
		"one that came after there was one": {`{}`, unheard, true},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			client := hostileGuest(t, answers(func(id uint64) string {
				asked++
				return fmt.Sprintf(`{"id":%d,"result":%s}`+"\n", id, tt.status)
			}))
			for range 2 {
				err := client.Require(t.Context(), tt.feature)
				old, ok := errors.AsType[*UnsupportedError](err)
				if ok != tt.old || err != nil && !ok || ok && (old.Feature != tt.feature || !errors.Is(err, errors.ErrUnsupported)) {
					t.Errorf("got %v, want an agent that is too old: %v", err, tt.old)
				}
			}
			if asked != 1 {
				t.Errorf("the guest was asked %d times", asked)
			}
		})
	}
}

func TestMethodThatAnOldAgentDoesNotKnow(t *testing.T) {
	client := hostileGuest(t, answers(func(id uint64) string {
		return fmt.Sprintf(`{"id":%d,"error":{"code":"unknown-method","message":"what?"}}`+"\n", id)
	}))
	_, clock := client.SyncClock(t.Context())
	for err, want := range map[error]string{
		clock:                            "too old to have the guest's clock set: build the image anew",
		client.GrowDisk(t.Context(), 1):  "too old to grow a file system: build the image anew",
		client.Sync(t.Context()):         `too old to do what is called "sync"`,
		client.Require(t.Context(), "x"): `too old to do what is called "status"`,
	} {
		if _, ok := errors.AsType[*UnsupportedError](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
