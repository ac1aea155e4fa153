package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestAgentIsReachedAgainHoweverOftenThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &supervisor{log: slog.New(slog.DiscardHandler)}
		start, tries := time.Now(), 0
		if !v.redial(t.Context(), func(context.Context) error {
			if tries++; tries < 10 {
				return errors.New("handshake failed")
			}
			return nil
		}) {
			t.Error("it was given up")
		}
		// 1, 2, 4, 8, 16, 32 seconds, and then a minute each.
		if took := time.Since(start); tries != 10 || took != 63*time.Second+3*time.Minute {
			t.Errorf("%d tries in %v", tries, took)
		}
	})
}

func TestAgentIsNotTriedBeyondTheGuestsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &supervisor{log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if v.redial(ctx, func(context.Context) error { return errors.New("handshake failed") }) {
			t.Error("a guest that never answered was reached")
		}
	})
}

func TestLoginThatIsNotAnsweredIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &supervisor{log: slog.New(slog.DiscardHandler)}
		start, tries := time.Now(), 0
		if !v.redial(t.Context(), func(ctx context.Context) error {
			if tries++; tries > 1 {
				return nil
			}
			<-ctx.Done()
			return context.Cause(ctx)
		}) {
			t.Error("it was given up")
		}
		if took := time.Since(start); tries != 2 || took != loginTimeout+redialPause {
			t.Errorf("%d tries in %v", tries, took)
		}
	})
}
