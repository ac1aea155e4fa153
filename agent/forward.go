package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// Upstream is how [Forward] reaches the guest.
type Upstream struct {
	// Shared is the connection that all clients have in common.
	Shared *ssh.Client
	// Dial makes a connection for one client: see [Login]. It is called for
	// those who lend the guest their keys' agent (ssh -A) or a port (ssh -R),
	// which are refused if it is nil.
	Dial func(context.Context) (*ssh.Client, error)
}

// Forward serves SSH on down, without authentication, and passes every channel
// and request on to the guest as it is. Any number of clients share one
// connection in this way, and none of them pays for a handshake. Who can reach
// down can do everything in the guest: it must be protected by where it is,
// such as a socket in a directory of mode 0700.
//
// Forward returns when down has closed, which is no error, or ctx has ended.
// It closes down and leaves the shared connection open.
func Forward(ctx context.Context, down net.Conn, upstream Upstream, hostKey ssh.Signer) error {
	up := upstream.Shared
	defer down.Close()
	config := &ssh.ServerConfig{Config: ChannelCrypto(), NoClientAuth: true, ServerVersion: "SSH-2.0-sandbox"}
	// Other programs may know none of our cheap algorithms, so the library's
	// own stand behind them.
	var standard ssh.Config
	standard.SetDefaults()
	config.KeyExchanges = append(config.KeyExchanges, standard.KeyExchanges...)
	config.Ciphers = append(config.Ciphers, standard.Ciphers...)
	config.AddHostKey(hostKey)

	stop := context.AfterFunc(ctx, func() { down.Close() })
	defer stop()
	conn, channels, requests, err := ssh.NewServerConn(down, config)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("cannot serve the local SSH client: %w", err)
	}
	// A client must not wait for a guest that is gone.
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_ = up.Wait()
		conn.Close()
	}()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	private := &own{ctx: ctx, dial: upstream.Dial, down: conn}
	var running sync.WaitGroup
	running.Go(func() { forwardGlobal(requests, up, private) })
	for offered := range channels {
		running.Go(func() { forwardSession(offered, up, private) })
	}
	err = context.Cause(ctx)
	cancel()
	private.close()
	running.Wait()
	select {
	case <-gone:
		return errors.New("the connection to the guest's agent has ended")
	default:
		return err
	}
}

// forwardGlobal passes on the requests that concern the connection.
func forwardGlobal(requests <-chan *ssh.Request, up *ssh.Client, private *own) {
	for request := range requests {
		switch request.Type {
		case "tcpip-forward", "cancel-tcpip-forward":
			accepted, payload, err := private.request(request, wire.ChannelForwardedTCP)
			reply(request, accepted && err == nil, payload)
		case "streamlocal-forward@openssh.com", "cancel-streamlocal-forward@openssh.com",
			"no-more-sessions@openssh.com":
			// These would change the connection for all who share it.
			reply(request, false, nil)
		case "keepalive@openssh.com":
			// up is watched by its own Client, which knows whether the
			// guest is paused; those down here do not. A refusal is the
			// answer that the guest gives, and as good a sign.
			reply(request, false, nil)
		default:
			accepted, payload, err := up.SendRequest(request.Type, request.WantReply, request.Payload)
			reply(request, accepted && err == nil, payload)
		}
	}
}

func reply(request *ssh.Request, accepted bool, payload []byte) {
	if request.WantReply {
		// It fails only when the connection has ended, which shows elsewhere.
		_ = request.Reply(accepted, payload)
	}
}

// forwardSession is forwardChannel for a channel to the guest.
func forwardSession(offered ssh.NewChannel, up *ssh.Client, private *own) {
	forward(offered, up, func(guest ssh.Channel, request *ssh.Request) (accepted bool, err error) {
		if request.Type == wire.RequestAgent {
			return private.lendAgent(guest), nil
		}
		return passRequest(guest, request)
	})
}

// forwardChannel passes a channel from the guest on.
func forwardChannel(offered ssh.NewChannel, to ssh.Conn) {
	forward(offered, to, passRequest)
}

func passRequest(to ssh.Channel, request *ssh.Request) (accepted bool, err error) {
	return to.SendRequest(request.Type, request.WantReply, request.Payload)
}

// forward opens the channel that one side asks for at the other and passes on
// what comes from either until both have closed it. The requests of the side
// that asked go by way of ask.
func forward(offered ssh.NewChannel, at ssh.Conn, ask func(ssh.Channel, *ssh.Request) (bool, error)) {
	upper, upperRequests, err := at.OpenChannel(offered.ChannelType(), offered.ExtraData())
	if err != nil {
		reason, message := ssh.ConnectionFailed, err.Error()
		if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
			reason, message = refused.Reason, refused.Message
		}
		_ = offered.Reject(reason, message)
		return
	}
	lower, lowerRequests, err := offered.Accept()
	if err != nil {
		go ssh.DiscardRequests(upperRequests)
		upper.Close()
		return
	}
	var sides sync.WaitGroup
	var lowerAsks, upperAsks sync.Mutex
	sides.Go(func() { forwardSide(upper, lower, lowerRequests, ask, &lowerAsks, &upperAsks) })
	sides.Go(func() { forwardSide(lower, upper, upperRequests, passRequest, &upperAsks, &lowerAsks) })
	sides.Wait()
}

// forwardSide passes on all that comes from one side of a channel. Data comes
// before the end of the data, and both before the close, as they came; the
// requests end with the close. What cannot be delivered is dropped: then the
// other side has closed the channel, and its own forwarder passes that on.
//
// asks is held while a request of this side waits for its answer, and toAsks
// is the same for the other side: a command that ends at once is answered and
// closed in one breath, and the close must not overtake the answer.
func forwardSide(to, from ssh.Channel, requests <-chan *ssh.Request, ask func(ssh.Channel, *ssh.Request) (bool, error), asks, toAsks *sync.Mutex) {
	var data sync.WaitGroup
	data.Go(func() { drain(to, from) })
	data.Go(func() { drain(to.Stderr(), from.Stderr()) })
	ended := make(chan struct{})
	go func() {
		data.Wait()
		_ = to.CloseWrite()
		close(ended)
	}()
	for request := range requests {
		if endsSession(request.Type) {
			// A client may close the channel once it knows the exit status.
			<-ended
		}
		asks.Lock()
		accepted, err := ask(to, request)
		if err == nil { // else the side that asks is told by the close that follows
			reply(request, accepted, nil)
		}
		asks.Unlock()
	}
	<-ended
	toAsks.Lock()
	defer toAsks.Unlock()
	to.Close()
}

// drain copies all of r to w. After w has failed it reads on, so that nobody
// is stopped in the middle by a full window.
func drain(w io.Writer, r io.Reader) {
	if _, err := io.Copy(w, r); err != nil {
		_, _ = io.Copy(io.Discard, r)
	}
}

// endsSession reports whether a request tells how a session's command ended.
func endsSession(kind string) bool { return kind == "exit-status" || kind == "exit-signal" }
