package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// ExitError is how a command ended that did not end with exit status 0.
type ExitError struct {
	// Code is the exit status; for a command that a signal ended it is 128
	// plus the signal's number, as in a shell.
	Code int
	// Signal is the signal's name without SIG, or empty.
	Signal string
}

func (e *ExitError) Error() string {
	if e.Signal != "" {
		return "the command was ended by signal " + e.Signal
	}
	return fmt.Sprintf("the command ended with exit status %d", e.Code)
}

// ErrNoExitStatus is why a command's Wait failed whose channel closed before
// the guest said how the command ended.
var ErrNoExitStatus = errors.New("the guest ended the session without an exit status (it was shut down, or its agent died)")

// A StreamError is why one of a command's streams broke on our side. The
// command was told: when its input broke it was hung up, and where an output
// did, its next write failed.
type StreamError struct {
	Stream string // "input", "output" or "error output"
	Err    error
}

func (e *StreamError) Error() string {
	if e.Stream == "input" {
		return "cannot read the command's input, so the command was hung up: " + e.Err.Error()
	}
	return fmt.Sprintf("cannot write the command's %s: %v", e.Stream, e.Err)
}

func (e *StreamError) Unwrap() error { return e.Err }

// Cmd is one command in the guest. It is used like the Cmd of os/exec: set
// the fields, then call Run, or Start and Wait. It cannot be used twice.
type Cmd struct {
	// Argv is the exact argument list, program first, looked up in the PATH of
	// the guest's user. If it is empty, the user's login shell is started.
	Argv []string
	// Env is added to the guest's environment, as "NAME=VALUE".
	Env []string
	// Dir is the working directory; relative to, and by default, the home.
	Dir string
	// User is a user of the guest; empty means the image's own.
	User string
	// Login reads the profile of the user's login shell first.
	Login bool
	// Self runs the agent's own program in place of Argv[0].
	Self bool

	// Stdin is read until its end, which then reaches the command. Nil means
	// no input. Wait does not wait for a Read that is under way. A Read that
	// fails hangs the command up. A [Taker] is told how much of it the command
	// has read.
	Stdin io.Reader
	// Stdout and Stderr get the output; nil discards it. With a terminal
	// everything comes on Stdout. When a Write fails, the command gets SIGPIPE
	// at its next one, as in a pipeline.
	Stdout, Stderr io.Writer

	// Terminal, if it is set, gives the command a terminal of its own.
	Terminal *Terminal

	client *Client
	ctx    context.Context

	channel  ssh.Channel
	stop     func() bool // ends the watch on ctx
	finished chan struct{}
	outputs  [2]*gate // standard output and error

	mu     sync.Mutex
	broken error // why a stream broke, the first one

	// Written before finished is closed.
	exit   error
	killed bool // by the end of ctx
}

// killGrace is how long Wait goes on waiting after the end of the command's
// context, for the guest's confirmation and the last output.
const killGrace = 2 * time.Second

// Command returns a command that runs in the guest until it ends or ctx does;
// in the latter case it is killed.
func (c *Client) Command(ctx context.Context, argv ...string) *Cmd {
	return &Cmd{Argv: argv, client: c, ctx: ctx}
}

// Run starts the command and waits for its end.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// MaxOutput bounds what [Cmd.Output] keeps, in bytes.
const MaxOutput = 1 << 20

// Output runs the command and returns what it wrote to its standard output. A
// command that writes more than [MaxOutput] is killed, which is an error: set
// Stdout for those that may.
func (c *Cmd) Output() ([]byte, error) {
	if c.Stdout != nil {
		return nil, errors.New("the command's Stdout is set already")
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	defer cancel(nil)
	out := &outputBuffer{full: func() {
		cancel(fmt.Errorf("the command wrote more than %d bytes, and was ended", MaxOutput))
	}}
	c.ctx, c.Stdout = ctx, out
	err := c.Run()
	return out.kept(), err
}

// outputBuffer keeps up to MaxOutput bytes, and calls full for what is more.
type outputBuffer struct {
	full func()

	mu sync.Mutex // a command that was given up may still write
	b  []byte
}

func (o *outputBuffer) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	room := MaxOutput - len(o.b)
	o.b = append(o.b, p[:min(len(p), room)]...)
	if len(p) > room {
		o.full()
	}
	return len(p), nil
}

func (o *outputBuffer) kept() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b
}

// Start starts the command. A command that does not exist is no error here: as
// in a shell it prints a message and exits with status 127, and with 126 if it
// cannot be executed.
func (c *Cmd) Start() error {
	if c.channel != nil {
		return errors.New("the command was started before")
	}
	payload, err := c.request()
	if err != nil {
		return err
	}
	channel, requests, err := c.client.openChannel(c.ctx, "session")
	if err != nil {
		return fmt.Errorf("cannot start a session in the guest: %w", err)
	}
	if err := within(c.ctx, func() error { return c.ask(channel, payload) }); err != nil {
		go ssh.DiscardRequests(requests)
		go channel.Close()
		return fmt.Errorf("cannot start the command in the guest: %w", c.client.explain(err))
	}
	c.channel = channel
	c.finished = make(chan struct{})
	c.outputs = [2]*gate{{w: c.Stdout}, {w: c.Stderr}}
	c.stop = context.AfterFunc(c.ctx, c.kill)
	go c.follow(requests)
	return nil
}

// request encodes what the guest has to know, and refuses what no kernel takes.
func (c *Cmd) request() ([]byte, error) {
	request := wire.ExecRequest{Dir: wire.RawString(c.Dir), User: c.User, Login: c.Login, Self: c.Self}
	size := 0
	for _, text := range append(slices.Clone(c.Argv), c.Env...) {
		size += len(text) + 1
	}
	if size > wire.MaxExec {
		return nil, fmt.Errorf("argument list too long (E2BIG): the command's arguments and variables are %d bytes, and no kernel takes more than %d", size, wire.MaxExec)
	}
	for i, arg := range c.Argv {
		if strings.ContainsRune(arg, 0) {
			return nil, fmt.Errorf("argument %d of the command contains a NUL byte", i)
		}
		request.Argv = append(request.Argv, wire.RawString(arg))
	}
	for _, setting := range c.Env {
		name, _, ok := strings.Cut(setting, "=")
		if !ok || name == "" || strings.ContainsRune(setting, 0) {
			return nil, fmt.Errorf("the setting of the variable %q is not of the form NAME=VALUE, or contains a NUL byte", name)
		}
		request.Env = append(request.Env, wire.RawString(setting))
	}
	return json.Marshal(request)
}

// maxRequest is how much of a request's payload is sent in one message. Those
// of x/crypto may be 256 KiB long.
const maxRequest = 128 << 10

// ask makes the channel a session that runs the command.
func (c *Cmd) ask(channel ssh.Channel, payload []byte) error {
	if c.Terminal != nil {
		accepted, err := channel.SendRequest("pty-req", true, c.Terminal.request())
		if err != nil {
			return wire.NoEOF(err)
		}
		if !accepted {
			return errors.New("the guest has no terminal to give")
		}
	}
	if err := c.askInputReports(channel); err != nil {
		return err
	}
	for ; len(payload) > maxRequest; payload = payload[maxRequest:] {
		if _, err := channel.SendRequest(wire.RequestExecPart, false, payload[:maxRequest]); err != nil {
			return wire.NoEOF(err)
		}
	}
	accepted, err := channel.SendRequest(wire.RequestExec, true, payload)
	if err != nil {
		return wire.NoEOF(err)
	}
	if !accepted {
		return errors.New("the guest refuses the request (is the image older than this program?)")
	}
	return nil
}

// follow moves the command's data and waits for its end.
func (c *Cmd) follow(requests <-chan *ssh.Request) {
	go c.feed()
	var outputs sync.WaitGroup
	outputs.Go(func() { c.deliver("output", "", c.outputs[0], c.channel) })
	outputs.Go(func() { c.deliver("error output", wire.CloseErrorOutput, c.outputs[1], c.channel.Stderr()) })

	c.exit = ErrNoExitStatus
	for request := range requests {
		if exit, ok := parseExit(request); ok {
			c.exit = exit
		}
		c.heedInputRead(request)
		if request.WantReply {
			// The error of an ended connection shows in all other places.
			_ = request.Reply(false, nil)
		}
	}
	outputs.Wait()
	c.killed = !c.stop()
	c.channel.Close()
	close(c.finished)
}

// feed sends the command its input and then the end of it.
func (c *Cmd) feed() {
	if c.Stdin != nil {
		in := &input{from: c.Stdin}
		// A command need not read all of its input, so a failed write is no
		// error of the command.
		_, _ = io.Copy(c.channel, in)
		if in.err != nil {
			c.fail("input", in.err)
			// Before the end of the input, which would look like that of the
			// whole: so the answer is waited for.
			_, _ = c.channel.SendRequest("signal", true, ssh.Marshal(struct{ Name string }{"HUP"}))
		}
	}
	_ = c.channel.CloseWrite()
}

// input remembers why it could not be read.
type input struct {
	from io.Reader
	err  error
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		i.err = err
	}
	return n, err
}

// deliver copies an output to the caller's writer. When that fails, the guest
// is told with the given payload, and what is still on its way is dropped: the
// command must not be stopped in the middle by a full pipe.
func (c *Cmd) deliver(stream, payload string, w io.Writer, r io.Reader) {
	if _, err := io.Copy(w, r); err != nil {
		c.fail(stream, err)
		_, _ = c.channel.SendRequest(wire.RequestCloseOutput, false, []byte(payload))
		_, _ = io.Copy(io.Discard, r)
	}
}

func (c *Cmd) fail(stream string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = &StreamError{stream, err}
	}
}

func (c *Cmd) streamError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.broken
}

// parseExit understands the two requests that report a command's end.
func parseExit(request *ssh.Request) (error, bool) {
	switch request.Type {
	case "exit-status":
		var status struct{ Code uint32 }
		if ssh.Unmarshal(request.Payload, &status) != nil {
			return nil, false
		}
		if status.Code == 0 {
			return nil, true
		}
		return &ExitError{Code: int(status.Code)}, true
	case "exit-signal":
		var signal exitSignal
		if ssh.Unmarshal(request.Payload, &signal) != nil {
			return nil, false
		}
		return &ExitError{Code: 128 + wire.SignalNumber(signal.Name), Signal: signal.Name}, true
	}
	return nil, false
}

// exitSignal is the payload of "exit-signal", RFC 4254 section 6.10.
type exitSignal struct {
	Name       string
	CoreDumped bool
	Message    string
	Language   string
}

// kill ends the command because its context has ended. The guest ends what is
// left when the channel closes.
func (c *Cmd) kill() {
	_ = c.Signal("KILL")
	c.channel.Close()
}

// Wait waits until the command has ended and its output has been delivered.
// The error is an [*ExitError] if the command ran and ended otherwise than
// with status 0, a [*StreamError] however it ended if its input could not be
// read or its output not be delivered, and the context's cause if the context
// ended it.
func (c *Cmd) Wait() error {
	if c.channel == nil {
		return errors.New("the command was not started")
	}
	select {
	case <-c.finished:
	case <-c.ctx.Done():
		if !c.finishesIn(killGrace) {
			for _, output := range c.outputs {
				output.shut()
			}
			return context.Cause(c.ctx)
		}
	}
	if c.exit != nil && c.killed {
		return context.Cause(c.ctx)
	}
	if err := c.streamError(); err != nil {
		return err
	}
	if errors.Is(c.exit, ErrNoExitStatus) {
		return c.client.explain(c.exit)
	}
	return c.exit
}

func (c *Cmd) finishesIn(grace time.Duration) bool {
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.finished:
		return true
	case <-timer.C:
		return false
	}
}

// gate is one of the caller's writers. Once it is shut nothing is written to
// it any more, so that the caller may use it again although the guest hangs.
type gate struct {
	mu   sync.Mutex
	w    io.Writer // nil discards
	done bool
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.done || g.w == nil {
		return len(p), nil
	}
	return g.w.Write(p)
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done = true
}

// Signal sends a signal to the command's process group. The name is that of
// signal(7), with or without SIG.
func (c *Cmd) Signal(name string) error {
	if c.channel == nil {
		return errors.New("the command was not started")
	}
	name = strings.TrimPrefix(name, "SIG")
	if wire.SignalNumber(name) == 0 {
		return fmt.Errorf("there is no signal named %q; use a name such as INT, TERM or KILL", name)
	}
	if _, err := c.channel.SendRequest("signal", false, ssh.Marshal(struct{ Name string }{name})); err != nil {
		return fmt.Errorf("cannot send signal %s to the command: %w", name, wire.NoEOF(err))
	}
	return nil
}
