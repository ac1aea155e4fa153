package machine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// deadShareError says that the guest has lost a share. It cannot be saved:
// requests to a dead virtiofsd block it for ever, and no later one can be
// attached.
type deadShareError struct{ server *virtiofs.Server }

func (e *deadShareError) Error() string {
	err := e.server.Err()
	if err == nil {
		err = errors.New("it ended without an error")
	}
	return fmt.Sprintf("the file server of a share died: %v", err)
}

// sharesDied returns a channel that gets each file server that ends.
func (v *supervisor) sharesDied() <-chan *virtiofs.Server {
	died := make(chan *virtiofs.Server, len(v.servers))
	for _, server := range v.servers {
		go func() {
			<-server.Done()
			died <- server
		}()
	}
	return died
}

// How much later than its file servers, which end when it disconnects, QEMU may
// be seen to end. A server that says that it was left is believed for as long as
// a busy host may take to free the guest's memory; one that was killed says
// nothing.
const (
	followGrace = time.Second
	leaveGrace  = 20 * time.Second
)

func graceAfter(server *virtiofs.Server) time.Duration {
	if server.Err() == nil {
		return leaveGrace
	}
	return followGrace
}

// followsGuest tells whether a file server has ended because the guest did.
func (v *supervisor) followsGuest(server *virtiofs.Server) bool {
	select {
	case <-v.vm.Done():
		return true
	case <-time.After(graceAfter(server)):
		return false
	}
}

// cancelWhenShareDies ends a start that can only wait in vain. The caller
// calls the returned function when the start is over.
func (v *supervisor) cancelWhenShareDies(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	died := v.sharesDied()
	go func() {
		select {
		case server := <-died:
			// A QEMU that has ended says better what went wrong.
			select {
			case <-ctx.Done():
			case <-time.After(graceAfter(server)):
				cancel(&deadShareError{server})
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}
