package supervisor

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
)

func TestGuestIsFollowedUntilItHasGivenEnough(t *testing.T) {
	const m = 1 << 20
	for name, tt := range map[string]struct {
		grow   bool
		target int64
		has    []int64       // one after the other, each told by an event
		after  time.Duration // between them
		want   int64
		err    error
	}{
		"at once":            {false, 512 * m, []int64{512 * m}, 0, 512 * m, nil},
		"bit by bit":         {false, 512 * m, []int64{1024 * m, 900 * m, 700 * m, 500 * m}, balloonPatience - 1, 500 * m, nil},
		"taken back":         {true, 1024 * m, []int64{512 * m, 800 * m, 1025 * m}, 1, 1025 * m, nil},
		"all of a bit more":  {true, 1024 * m, []int64{1025 * m}, 1, 1025 * m, nil},
		"a guest in need":    {false, 512 * m, []int64{1024 * m, 900 * m, 950 * m, 890 * m, 910 * m}, balloonPatience / 3, 890 * m, errGivesNoMore},
		"no driver":          {false, 512 * m, []int64{1024 * m}, 1, 1024 * m, errGivesNoMore},
		"no driver, growing": {true, 1024 * m, []int64{512 * m}, 1, 512 * m, errNoBalloon},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				events := make(chan qmp.Event)
				looks := 0
				b := balloon{target: tt.target, grow: tt.grow, now: func(context.Context) (int64, error) {
					looks++
					return tt.has[min(looks, len(tt.has))-1], nil
				}}
				told := make(chan struct{})
				go func() {
					defer close(told)
					for range len(tt.has) - 1 {
						time.Sleep(tt.after)
						for _, e := range []string{"RESUME", "BALLOON_CHANGE"} {
							select {
							case events <- qmp.Event{Event: e}:
							case <-ctx.Done():
							}
						}
					}
				}()
				got, err := b.follow(ctx, events)
				cancel()
				<-told
				if got != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("got %d, %v; want %d, %v", got, err, tt.want, tt.err)
				}
			})
		})
	}
}

func TestFollowingEndsWithQEMUAndWithWhoAsked(t *testing.T) {
	b := balloon{target: 1, now: func(context.Context) (int64, error) { return 2, nil }}
	events := make(chan qmp.Event)
	close(events)
	if _, err := b.follow(t.Context(), events); err == nil || !strings.Contains(err.Error(), "QEMU has ended") {
		t.Errorf("without QEMU: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := b.follow(ctx, make(chan qmp.Event)); got != 2 || !errors.Is(err, context.Canceled) {
		t.Errorf("without anybody who waits: %d, %v", got, err)
	}
}
