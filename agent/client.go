package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

const (
	// keepAliveInterval is how often an idle connection is proved alive.
	keepAliveInterval = 15 * time.Second

	// keepAliveTimeout is how long the guest may take to answer. A guest
	// under emulation on a busy host has been seen to stall for seconds.
	keepAliveTimeout = 60 * time.Second
)

// ErrUnresponsive is why a connection ended whose guest no longer answered.
var ErrUnresponsive = errors.New("the guest's agent has stopped answering; the guest hangs or is out of memory (look at its console log)")

// ErrGuestClosed is why a connection ended that the guest, or what forwards to
// it, has closed: the ordinary end when a guest shuts down.
var ErrGuestClosed = errors.New("the guest has closed the connection (it was shut down, or its agent died)")

// Client is an authenticated connection to a guest's agent. Its methods may be
// called at the same time; each takes a channel of its own.
type Client struct {
	ssh  *ssh.Client
	done chan struct{}

	clock sync.Mutex // held while the guest's clock is set

	mu      sync.Mutex
	paused  bool      // the guest stands still and is not expected to answer
	resumed time.Time // when it last went on
	err     error     // why the connection ended, once done is closed
	control *controlClient

	told     bool // the guest has told its status
	features []Feature
}

// Connect is [Pin.Connect] for a guest that nobody logs in to again.
func Connect(ctx context.Context, conn net.Conn, key ssh.Signer) (*Client, error) {
	return new(Pin).Connect(ctx, conn, key)
}

// Pin is the key by which a guest proves itself, once it has done so for the
// first time. The zero value knows none yet.
//
// A guest makes its key at every boot, so nothing but the transport proves it
// at the first login: a socket that only our QEMU holds, or a vsock address
// that the kernel gave to it. But such an address is free again when QEMU dies,
// and whoever takes it then has not the key.
type Pin struct {
	mu  sync.Mutex
	key []byte
}

// check is for [ssh.ClientConfig]. It is called when the other side has proved
// that it has the key.
func (p *Pin) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.key == nil {
		p.key = key.Marshal()
	}
	if !bytes.Equal(p.key, key.Marshal()) {
		return errors.New("somebody else answers in the guest's place: its key is not the one of the first login")
	}
	return nil
}

// Connect is Login for a connection that is watched from then on: it ends when
// the guest no longer answers. Closing the client closes it.
func (p *Pin) Connect(ctx context.Context, conn net.Conn, key ssh.Signer) (*Client, error) {
	login, err := p.Login(ctx, conn, key)
	if err != nil {
		return nil, err
	}
	c := NewClient(login)
	go c.keepAlive(keepAliveInterval, keepAliveTimeout)
	return c, nil
}

// Login performs the SSH handshake on conn, with key as the proof that we may
// command the guest, whose own key must be the pinned one, or is pinned. It
// takes ownership of conn, also when it fails.
func (p *Pin) Login(ctx context.Context, conn net.Conn, key ssh.Signer) (*ssh.Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	sshConn, channels, requests, err := ssh.NewClientConn(conn, "guest", &ssh.ClientConfig{
		Config:            ChannelCrypto(),
		User:              "sandbox",
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback:   p.check,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		ClientVersion:     "SSH-2.0-sandbox",
	})
	if !stop() || err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, fmt.Errorf("cannot log in to the guest's agent: %w", err)
	}
	return ssh.NewClient(sshConn, channels, requests), nil
}

// NewClient uses a connection that is already authenticated, such as one to a
// socket that [Forward] serves. It takes ownership of conn.
func NewClient(conn *ssh.Client) *Client {
	c := &Client{ssh: conn, done: make(chan struct{})}
	go func() {
		err := conn.Wait()
		if err == nil || errors.Is(err, io.EOF) {
			err = ErrGuestClosed
		}
		c.mu.Lock()
		if c.err == nil {
			c.err = err
		}
		c.mu.Unlock()
		close(c.done)
	}()
	return c
}

// SSH returns the connection itself, for [Forward], for dialling into the
// guest and for SFTP. It belongs to the client: do not close it.
func (c *Client) SSH() *ssh.Client { return c.ssh }

// Done is closed when the connection has ended, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err says why the connection ended; it is nil until Done is closed.
func (c *Client) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection and with it every command that runs over it.
func (c *Client) Close() error {
	c.end(net.ErrClosed)
	<-c.done
	return nil
}

// end closes the connection for the given reason, unless it has one already.
func (c *Client) end(reason error) {
	c.mu.Lock()
	if c.err == nil {
		c.err = reason
	}
	c.mu.Unlock()
	// The error of a second Close says nothing new.
	_ = c.ssh.Close()
}

// keepAlive asks the guest for a sign of life until the connection ends.
func (c *Client) keepAlive(interval, timeout time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-c.done:
			return
		case <-ticker.C:
		}
		answered := make(chan struct{})
		go c.expect(answered, timeout)
		// A refusal is as good a sign as a yes; an error ends the loop by done.
		_, _, _ = c.ssh.SendRequest("keepalive@openssh.com", true, nil)
		close(answered)
	}
}

// expect ends the connection unless it is answered in time. The time counts
// from the moment that a paused guest goes on.
func (c *Client) expect(answered <-chan struct{}, timeout time.Duration) {
	ticker := time.NewTicker(timeout)
	defer ticker.Stop()
	for {
		select {
		case <-answered:
			return
		case <-c.done:
			return
		case <-ticker.C:
		}
		c.mu.Lock()
		excused := c.paused || time.Since(c.resumed) < timeout
		c.mu.Unlock()
		if !excused {
			c.end(ErrUnresponsive)
			return
		}
	}
}

// SetPaused says whether the guest stands still. While it does, its silence
// does not end the connection, however long it takes.
func (c *Client) SetPaused(paused bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.paused && !paused {
		c.resumed = time.Now()
	}
	c.paused = paused
}

// Configure gives the guest what it needs to finish its start, and returns
// when home and shares are mounted. It can be done once in each boot.
func (c *Client) Configure(ctx context.Context, config BootConfig) error {
	if err := c.call(ctx, wire.MethodConfigure, config, nil); err != nil {
		return fmt.Errorf("the guest could not be configured: %w", err)
	}
	return nil
}

// Status asks the guest how far its start has come.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var status Status
	if err := c.call(ctx, wire.MethodStatus, nil, &status); err != nil {
		return Status{}, fmt.Errorf("cannot read the guest's status: %w", err)
	}
	return c.learn(status), nil
}

// Wait returns when the guest has reached a stage, or when it has failed and
// never will.
func (c *Client) Wait(ctx context.Context, stage Stage) (Status, error) {
	var status Status
	if err := c.call(ctx, wire.MethodWait, wire.WaitParams{Stage: string(stage)}, &status); err != nil {
		return Status{}, fmt.Errorf("the guest did not reach its stage %q: %w", stage, err)
	}
	return c.learn(status), nil
}

// learn bounds what the guest has told, and keeps what does not change.
func (c *Client) learn(status Status) Status {
	status = status.bounded()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told, c.features = true, status.Features
	return status
}

// PowerOff tells the guest to shut down in good order, and returns when it has
// begun. The end of the connection follows.
func (c *Client) PowerOff(ctx context.Context) error {
	if err := c.call(ctx, wire.MethodPowerOff, nil, nil); err != nil {
		return fmt.Errorf("the guest could not be told to shut down: %w", err)
	}
	return nil
}

// Sync returns when the guest has written back everything that it holds in
// memory for its disk, its home and its shares.
func (c *Client) Sync(ctx context.Context) error {
	if err := c.call(ctx, wire.MethodSync, nil, nil); err != nil {
		return fmt.Errorf("the guest did not write back its files: %w", err)
	}
	return nil
}

// Resume tells a guest that stood still, or was restored, what has changed.
func (c *Client) Resume(ctx context.Context, config ResumeConfig) error {
	if err := c.call(ctx, wire.MethodResume, config, nil); err != nil {
		return fmt.Errorf("the guest could not be told that it goes on: %w", err)
	}
	return nil
}

// GrowDisk returns when the guest has noticed that its disk has that many
// bytes, or more, and has extended the disk's file system to all of it.
func (c *Client) GrowDisk(ctx context.Context, bytes int64) error {
	if err := c.call(ctx, wire.MethodGrowDisk, wire.GrowDiskParams{Bytes: bytes}, nil); err != nil {
		return fmt.Errorf("the guest could not use all of its disk: %w", err)
	}
	return nil
}

// openChannel opens an SSH channel; x/crypto's call knows no context.
func (c *Client) openChannel(ctx context.Context, kind string) (ssh.Channel, <-chan *ssh.Request, error) {
	type opened struct {
		channel  ssh.Channel
		requests <-chan *ssh.Request
		err      error
	}
	result := make(chan opened, 1)
	go func() {
		channel, requests, err := c.ssh.OpenChannel(kind, nil)
		result <- opened{channel, requests, err}
	}()
	select {
	case o := <-result:
		if refused, ok := errors.AsType[*ssh.OpenChannelError](o.err); ok {
			refused.Message = clip(refused.Message)
		}
		if o.err != nil {
			return nil, nil, c.explain(o.err)
		}
		return o.channel, o.requests, nil
	case <-ctx.Done():
		go func() {
			if o := <-result; o.err == nil {
				go ssh.DiscardRequests(o.requests)
				o.channel.Close()
			}
		}()
		return nil, nil, context.Cause(ctx)
	}
}

// explain replaces an error that only says that the connection is gone by the
// reason why it is gone.
func (c *Client) explain(err error) error {
	if reason := c.Err(); reason != nil {
		return fmt.Errorf("the connection to the guest's agent has ended: %w", reason)
	}
	return err
}
