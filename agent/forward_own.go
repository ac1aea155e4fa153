package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// own is the connection to the guest that one client of Forward has for
// itself, once it asks for something by which the guest opens channels to it:
// on the shared one nobody could tell for whom they are.
type own struct {
	ctx  context.Context
	dial func(context.Context) (*ssh.Client, error)
	down *ssh.ServerConn

	mu      sync.Mutex
	client  *ssh.Client    // nil before the first request
	running sync.WaitGroup // channels that the guest has opened
}

// request makes a request on the client's own connection, after which the
// guest may open channels of the given kind to the client.
func (o *own) request(request *ssh.Request, kind string) (bool, []byte, error) {
	client, err := o.accept(kind)
	if err != nil {
		return false, nil, err
	}
	return client.SendRequest(request.Type, true, request.Payload)
}

// accept passes the guest's channels of that kind on from now on.
func (o *own) accept(kind string) (*ssh.Client, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.dial == nil {
		return nil, errors.New("there is no way to another connection")
	}
	if o.client == nil {
		client, err := o.dial(o.ctx)
		if err != nil {
			return nil, err
		}
		o.client = client
		go func() {
			// With it goes what the client has asked for, and it must hear of that.
			_ = client.Wait()
			o.down.Close()
		}()
	}
	if offers := o.client.HandleChannelOpen(kind); offers != nil { // nil: it was asked for before
		o.running.Go(func() { o.lend(offers) })
	}
	return o.client, nil
}

// maxLent bounds the channels of a kind that a guest may have open to one client at
// the same time: each costs memory here, and the guest decides how many it opens.
const maxLent = 100

// lend passes on the channels that the guest opens.
func (o *own) lend(offers <-chan ssh.NewChannel) {
	slots := make(chan struct{}, maxLent)
	for offered := range offers {
		select {
		case slots <- struct{}{}:
			o.running.Go(func() {
				defer func() { <-slots }()
				forwardChannel(offered, o.down)
			})
		default:
			_ = offered.Reject(ssh.ResourceShortage, fmt.Sprintf("%d connections are open already", maxLent))
		}
	}
}

// lendAgent lets the programs of a session use the agent of the client's keys.
// It reports whether the guest agrees.
func (o *own) lendAgent(session ssh.Channel) bool {
	client, err := o.accept(wire.ChannelAgent)
	if err != nil {
		return false
	}
	accepted, socket, err := client.SendRequest(wire.RequestAgentSocket, true, nil)
	if err != nil || !accepted {
		return false
	}
	setting := struct{ Name, Value string }{"SSH_AUTH_SOCK", string(socket)}
	accepted, err = session.SendRequest("env", true, ssh.Marshal(setting))
	return accepted && err == nil
}

// close ends the connection and all that came over it.
func (o *own) close() {
	o.mu.Lock()
	if o.client != nil {
		o.client.Close()
	}
	o.dial = nil
	o.mu.Unlock()
	o.running.Wait()
}
