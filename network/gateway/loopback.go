package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/socketpair"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/gateway/internal/wire"
	"github.com/sourcery-zone/sandbox/network/stack"
)

const (
	// maxLoopback is how many connections there may be at once to the guest's loopback. They go through the agent,
	// and each may hold a few megabytes that nobody reads.
	maxLoopback = 64

	// loopbackTimeout is how long the guest has for taking one.
	loopbackTimeout = 30 * time.Second
)

// connectLoopback does what the process asks for, if it may. It may be in the guest's hands, so it gets no more than
// what it would get over the network: ports that are published.
func (g *Gateway) connectLoopback(want wire.WantLoopback, control wire.Conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	published := slices.ContainsFunc(g.published, func(p published) bool {
		return p.Proto == network.TCP && p.GuestPort == int(want.Port)
	})
	refuse := func(why string) {
		// A process that is gone needs no answer.
		_ = g.tellBy(control, wire.Request{Loopback: &wire.Loopback{ID: want.ID, Error: why}}, nil)
	}
	switch {
	case g.options.Loopback == nil:
		refuse("nothing else leads into the guest")
	case !published:
		refuse("the port is not published")
	case g.loopbacks == maxLoopback:
		refuse(fmt.Sprintf("there are %d connections to the guest's loopback already", maxLoopback))
	default:
		g.loopbacks++
		go func() {
			if err := g.serveLoopback(want, control); err != nil {
				g.options.Logger.Debug("the guest's loopback takes no connection", "port", want.Port, "err", err)
			}
			g.mu.Lock()
			defer g.mu.Unlock()
			g.loopbacks--
		}()
	}
}

// serveLoopback carries bytes between the process and the guest until both directions have ended. Its error says that
// there was nothing to carry.
func (g *Gateway) serveLoopback(want wire.WantLoopback, control wire.Conn) error {
	ctx, cancel := context.WithTimeout(g.ctx, loopbackTimeout)
	defer cancel()
	guest, err := g.options.Loopback(ctx, want.Port)
	answer := wire.Loopback{ID: want.ID}
	var near stack.HalfConn
	var far *os.File
	if err == nil {
		defer guest.Close()
		if near, far, err = socketpair.New(unix.SOCK_STREAM, "loopback"); err != nil {
			err = fmt.Errorf("making a connection to hand over: %w", err)
		}
	}
	if err != nil {
		answer.Error = err.Error()
	}
	g.mu.Lock()
	err = errors.Join(err, g.tellBy(control, wire.Request{Loopback: &answer}, far))
	g.mu.Unlock()
	if far != nil {
		far.Close()
		defer near.Close()
	}
	if err != nil {
		return err
	}
	stop := context.AfterFunc(g.ctx, func() {
		near.Close()
		guest.Close()
	})
	defer stop()
	// One that cannot go on in one direction goes on in the other: what was said before an end is to arrive.
	pass := func(to, from stack.HalfConn) {
		_, _ = io.Copy(to, from)
		_ = to.CloseWrite()
	}
	var ways sync.WaitGroup
	ways.Go(func() { pass(guest, near) })
	ways.Go(func() { pass(near, guest) })
	ways.Wait()
	return nil
}
