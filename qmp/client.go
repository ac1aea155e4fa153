package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	goqemu "github.com/digitalocean/go-qemu/qmp"
)

// defaultTimeout is for commands that QEMU answers in milliseconds unless its main loop is stuck.
const defaultTimeout = time.Minute

// Options are the choices of a client. The zero value is good.
type Options struct {
	// Logger gets one debug record for each message: names and sizes, and never a value of an
	// argument or result. Nil means no log.
	Logger *slog.Logger

	// Timeout limits Connect and Run, which have no context. Zero means one minute.
	Timeout time.Duration
}

// Version is go-qemu's record of QEMU's version.
type Version = goqemu.Version

// Greeting is what a monitor says first.
type Greeting struct {
	Version      Version  `json:"version"`
	Capabilities []string `json:"capabilities"` // what it offers; a Client asks for none of them
}

// Client is one connection to a monitor. All methods may be called by several goroutines at once.
type Client struct {
	transport *transport
	timeout   time.Duration

	handshake    sync.Once
	handshakeErr error
	ready        atomic.Bool // the handshake was successful

	close    sync.Once
	closeErr error
}

var _ goqemu.Monitor = (*Client)(nil)

// NewClient takes over conn, a stream on which QEMU speaks QMP, and starts to read from it. The
// caller must call Close in the end, and Handshake before any command.
func NewClient(conn net.Conn, o Options) *Client {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	return &Client{transport: newTransport(conn, transcript{o.Logger}), timeout: o.Timeout}
}

// Handshake waits for the monitor's greeting and puts it into command mode. It is made once; later
// calls return the result of the first. When it fails, or ctx ends before it is done, the
// connection is closed.
func (c *Client) Handshake(ctx context.Context) error {
	c.handshake.Do(func() {
		c.handshakeErr = c.negotiate(ctx)
		if c.handshakeErr != nil {
			_ = c.transport.shut(c.handshakeErr)
			return
		}
		c.ready.Store(true)
	})
	return c.handshakeErr
}

func (c *Client) negotiate(ctx context.Context) error {
	select {
	case <-c.transport.greeted:
	case <-c.transport.done:
		select {
		case <-c.transport.greeted: // and what comes next says why it has ended
		default:
			return fmt.Errorf("the monitor sent no QMP greeting: %w", c.Err())
		}
	case <-ctx.Done():
		return fmt.Errorf("the monitor sent no QMP greeting; it serves one client at a time, so another one may be connected: %w", ctx.Err())
	}
	return c.execute(ctx, "qmp_capabilities", nil, nil)
}

// Greeting returns what the monitor said first. It is the zero value before the handshake.
func (c *Client) Greeting() Greeting {
	select {
	case <-c.transport.greeted:
		return c.transport.greeting
	default:
		return Greeting{}
	}
}

// Execute runs one command. args is anything that encodes to a JSON object, or nil for no
// arguments; the command's result is decoded into result unless that is nil. QEMU's refusal is an
// *Error. When ctx ends first, QEMU may still carry the command out; its reply is then ignored.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	if err := c.usable(command); err != nil {
		return err
	}
	return c.execute(ctx, command, args, result)
}

func (c *Client) execute(ctx context.Context, command string, args, result any) error {
	return c.executeWith(ctx, command, args, result, nil)
}

// executeWith passes a descriptor of file along with the command, unless file is nil.
func (c *Client) executeWith(ctx context.Context, command string, args, result any, file *os.File) error {
	body, err := json.Marshal(goqemu.Command{Execute: command, Args: args})
	if err != nil {
		return fmt.Errorf("cannot encode the arguments of QMP command %q: %w", command, err)
	}
	value, err := c.call(ctx, command, body, file)
	if err != nil || result == nil {
		return err
	}
	if err := json.Unmarshal(value, result); err != nil {
		return fmt.Errorf("the result of QMP command %q does not fit a %T: %w", command, result, err)
	}
	return nil
}

// call makes a refusal an error.
func (c *Client) call(ctx context.Context, command string, body []byte, file *os.File) (json.RawMessage, error) {
	m, err := c.transport.roundTrip(ctx, command, body, file)
	if err != nil {
		return nil, err
	}
	if m.Error != nil {
		return nil, &Error{Class: m.Error.Class, Desc: m.Error.Desc, Command: command}
	}
	return m.Return, nil
}

func (c *Client) usable(command string) error {
	if c.ready.Load() || c.Err() != nil {
		return nil // the transport has the better words for an ended connection
	}
	return fmt.Errorf("QMP command %q was not sent: call Handshake or Connect first", command)
}

// Events returns a channel of all events that arrive from now on. Any number of subscribers may
// exist, and each may read at its own pace: events wait for it, and hold up nobody else. The channel
// is closed when ctx ends; when the connection has ended and all events before that were received;
// at once after Close; and when the subscriber is 65,536 events behind, which can be told from the
// rest because neither ctx nor the connection has ended then. A subscriber that stops reading must
// end ctx.
func (c *Client) Events(ctx context.Context) (<-chan Event, error) {
	if events, ok := c.transport.events.subscribe(ctx); ok {
		return events, nil
	}
	<-c.transport.done
	return nil, fmt.Errorf("there will be no more QMP events: %w", c.Err())
}

// Done is closed when the connection has ended, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.transport.done }

// Err returns why the connection ended, or nil while it has not. The package's documentation lists
// what it can be compared with.
func (c *Client) Err() error { return c.transport.Err() }

// Close ends the connection, and the subscriptions with what they have not received yet. QEMU goes
// on. Only the first call does anything; the others return its result.
func (c *Client) Close() error {
	c.close.Do(func() {
		c.transport.events.drop()
		c.closeErr = c.transport.shut(fmt.Errorf("the QMP client was closed: %w", net.ErrClosed))
	})
	return c.closeErr
}

// Connect is Handshake for go-qemu's Monitor interface, with the time limit of Options.
func (c *Client) Connect() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	return c.Handshake(ctx)
}

// Disconnect is Close for go-qemu's Monitor interface.
func (c *Client) Disconnect() error { return c.Close() }

// Run is RunContext for go-qemu's Monitor interface, with the time limit of Options.
func (c *Client) Run(command []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	return c.RunContext(ctx, command)
}

// RunContext sends a command that is JSON already, such as {"execute":"query-status"}, and returns
// the whole reply, such as {"return":{…}}. An id in the command comes back in the reply. QEMU's
// refusal is an *Error, not a reply.
func (c *Client) RunContext(ctx context.Context, command []byte) ([]byte, error) {
	raw, err := ParseCommand(command)
	if err != nil {
		return nil, err
	}
	if err := c.usable(raw.Name); err != nil {
		return nil, err
	}
	value, err := c.call(ctx, raw.Name, raw.Body, nil)
	if err != nil {
		return nil, err
	}
	return raw.Reply(value)
}

// Command is a command in its caller's own JSON, for a [Backend] that passes it on under an id of its
// own.
type Command struct {
	Name string
	Body []byte          // the whole command without the id
	ID   json.RawMessage // nil if it had none
}

// ParseCommand reads a command such as {"execute":"query-status"}.
func ParseCommand(text []byte) (Command, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(text, &members); err != nil {
		return Command{}, fmt.Errorf("a QMP command must be one JSON object: %w", err)
	}
	var c Command
	if err := json.Unmarshal(members["execute"], &c.Name); err != nil || c.Name == "" {
		return Command{}, errors.New(`a QMP command must name what to do, as in {"execute":"query-status"}`)
	}
	c.ID = members["id"]
	delete(members, "id")
	var err error
	c.Body, err = json.Marshal(members)
	return c, err
}

// Reply is the reply by which the command returns value to its caller.
func (c Command) Reply(value json.RawMessage) ([]byte, error) {
	return json.Marshal(okReply{Return: value, ID: c.ID})
}
