package qmp

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// Event is go-qemu's event, so that values pass between the two packages as they are. A STOP event
// has no data; the numbers within Data are float64.
type Event = goqemu.Event

// eventBacklog is how many events a subscriber may be behind. QEMU limits the rate of its chatty
// events itself, so only somebody who stopped reading, or a QEMU that a guest took over, gets there;
// neither may cost the reader its time or the process its memory.
const eventBacklog = 1 << 16

// broadcast copies each event to every subscriber.
type broadcast struct {
	log     transcript
	dropped chan struct{} // closed by drop

	mu    sync.Mutex
	subs  map[*subscription]struct{}
	ended bool
}

// subscription is the queue between the connection's reader and one subscriber.
type subscription struct {
	wake chan struct{} // holds a token while queue or ended has news

	mu    sync.Mutex
	queue []Event
	ended bool
}

func newBroadcast(log transcript) *broadcast {
	return &broadcast{log: log, dropped: make(chan struct{}), subs: map[*subscription]struct{}{}}
}

// subscribe returns a channel of all events from now on, or false if there will be none. It is
// closed when ctx ends, after drop, and when everything that arrived before end was received.
func (b *broadcast) subscribe(ctx context.Context) (<-chan Event, bool) {
	s := &subscription{wake: make(chan struct{}, 1)}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return nil, false
	}
	b.subs[s] = struct{}{}
	out := make(chan Event)
	go func() {
		defer close(out)
		defer b.remove(s)
		s.deliver(ctx, b.dropped, out)
	}()
	return out, true
}

// publish queues the event for every subscriber and never blocks. Each gets data of its own,
// because it is a map and they run at the same time.
func (b *broadcast) publish(m *message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.subs {
		e := Event{Event: m.Event, Timestamp: m.Timestamp}
		if len(m.Data) > 0 {
			if err := json.Unmarshal(m.Data, &e.Data); err != nil {
				return fmt.Errorf("%w: the data of event %s is no object (%v)", ErrProtocol, m.Event, err)
			}
		}
		if !s.push(e) {
			b.log.cutOff(eventBacklog)
			delete(b.subs, s)
			s.end()
		}
	}
	return nil
}

// end lets every subscriber have what is queued, and then closes its channel.
func (b *broadcast) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	for s := range b.subs {
		s.end()
	}
}

// drop closes the subscribers' channels without waiting for them. It is called at most once.
func (b *broadcast) drop() { close(b.dropped) }

func (b *broadcast) remove(s *subscription) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.subs, s)
}

// push queues e and reports whether there was room.
func (s *subscription) push(e Event) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == eventBacklog {
		return false
	}
	s.queue = append(s.queue, e)
	s.signal()
	return true
}

func (s *subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.signal()
}

func (s *subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake already
	}
}

// next removes the oldest event. Without one, it reports whether another can still come.
func (s *subscription) next() (e Event, ok, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil // so that the memory of a rare flood is given back
		return Event{}, false, !s.ended
	}
	e, s.queue[0] = s.queue[0], Event{}
	s.queue = s.queue[1:]
	return e, true, true
}

// deliver moves events from the queue to out until there can be no more, ctx ends or dropped is closed.
func (s *subscription) deliver(ctx context.Context, dropped <-chan struct{}, out chan<- Event) {
	for {
		e, ok, more := s.next()
		if !more {
			return
		}
		target, wake := out, (<-chan struct{})(nil)
		if !ok {
			target, wake = nil, s.wake
		}
		select {
		case target <- e:
		case <-wake:
		case <-ctx.Done():
			return
		case <-dropped:
			return
		}
	}
}
