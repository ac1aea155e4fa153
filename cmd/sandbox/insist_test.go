package main

import (
	"os"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func TestWhenASignalIsMeant(t *testing.T) {
	after := func(d time.Duration, signals ...os.Signal) os.Signal {
		var got os.Signal
		synctest.Test(t, func(*testing.T) {
			i := newInsistence()
			for _, sig := range signals {
				i.note(sig)
			}
			time.Sleep(d)
			synctest.Wait()
			select {
			case got = <-i.given:
			default:
			}
			i.close()
		})
		return got
	}
	const short, long = time.Second, 31 * time.Second
	for name, tt := range map[string]struct{ got, want os.Signal }{
		"nothing":              {after(long), nil},
		"once":                 {after(short, unix.SIGINT), nil},
		"once, and in vain":    {after(long, unix.SIGTERM), unix.SIGTERM},
		"twice":                {after(short, unix.SIGINT, unix.SIGINT), unix.SIGINT},
		"one of each":          {after(short, unix.SIGINT, unix.SIGTERM), nil},
		"what only tells":      {after(long, unix.SIGUSR1, unix.SIGUSR1, unix.SIGWINCH, unix.SIGWINCH), nil},
		"twice, after another": {after(short, unix.SIGINT, unix.SIGTERM, unix.SIGTERM), unix.SIGTERM},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %v, want %v", name, tt.got, tt.want)
		}
	}
}
