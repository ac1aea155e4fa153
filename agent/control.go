package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// maxAnswer bounds one answer on the control channel, in bytes. The longest that
// an agent of ours has to give, a status with many failed units, is a hundredth
// of it; a hostile guest's would never end.
const maxAnswer = 1 << 20

// controlClient matches the answers on one control channel to its questions.
type controlClient struct {
	channel ssh.Channel
	done    chan struct{} // closed when no more answers will come

	writing sync.Mutex  // held while a question is written
	halved  atomic.Bool // a question was left half written, and the channel is closed for that

	mu      sync.Mutex // guards what follows
	lastID  uint64
	waiting map[uint64]chan<- wire.ControlResponse
	err     error
}

// call performs one control request. result may be nil.
func (c *Client) call(ctx context.Context, method string, params, result any) error {
	control, err := c.controlChannel(ctx)
	if err != nil {
		return err
	}
	response, err := control.roundTrip(ctx, method, params)
	if err != nil {
		return c.explain(err)
	}
	if response.Error != nil && response.Error.Code == wire.CodeUnknownMethod {
		return &UnsupportedError{Feature(method)}
	}
	if response.Error != nil {
		return response.Error
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(response.Result, result); err != nil {
		return fmt.Errorf("the guest's answer to %q cannot be understood (is the image older than this program?): %w", method, err)
	}
	return nil
}

// controlChannel returns the client's control channel, opening it on first use
// and again after it broke.
func (c *Client) controlChannel(ctx context.Context) (*controlClient, error) {
	c.mu.Lock()
	current := c.control
	c.mu.Unlock()
	if current != nil && !current.ended() {
		return current, nil
	}
	fresh, err := c.openControl(ctx)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.control != nil && c.control != current && !c.control.ended() {
		// Another caller was faster.
		fresh.channel.Close()
		return c.control, nil
	}
	c.control = fresh
	return fresh, nil
}

func (c *Client) openControl(ctx context.Context) (*controlClient, error) {
	channel, requests, err := c.openChannel(ctx, "session")
	if err != nil {
		return nil, fmt.Errorf("cannot open the agent's control channel: %w", err)
	}
	go ssh.DiscardRequests(requests)
	err = within(ctx, func() error {
		accepted, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{wire.SubsystemControl}))
		if err == nil && !accepted {
			err = errors.New("the guest refuses it")
		}
		return wire.NoEOF(err)
	})
	if err != nil {
		go channel.Close()
		return nil, fmt.Errorf("cannot open the agent's control channel: %w", c.explain(err))
	}
	control := &controlClient{
		channel: channel,
		done:    make(chan struct{}),
		waiting: make(map[uint64]chan<- wire.ControlResponse),
	}
	go control.receive()
	return control, nil
}

func (c *controlClient) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return c.halved.Load()
	}
}

// receive hands out answers until the channel ends.
func (c *controlClient) receive() {
	lines := bufio.NewScanner(c.channel)
	lines.Buffer(nil, maxAnswer)
	var err error
	for err == nil && lines.Scan() {
		err = c.answer(lines.Bytes())
	}
	switch {
	case err != nil:
	case errors.Is(lines.Err(), bufio.ErrTooLong):
		err = fmt.Errorf("an answer has more than %d bytes", maxAnswer)
	case lines.Err() != nil:
		err = lines.Err()
	default:
		err = io.ErrUnexpectedEOF
	}
	c.mu.Lock()
	c.err = fmt.Errorf("the agent's control channel broke: %w", err)
	c.mu.Unlock()
	close(c.done)
	c.channel.Close()
}

// answer hands out one answer.
func (c *controlClient) answer(line []byte) error {
	var response wire.ControlResponse
	if err := json.Unmarshal(line, &response); err != nil {
		return err
	}
	if response.Error != nil {
		response.Error.Message = clip(response.Error.Message)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch answer := c.waiting[response.ID]; {
	case answer != nil:
		delete(c.waiting, response.ID)
		answer <- response
	case response.ID == 0 && response.Error != nil:
		return response.Error // what was asked could not be read
	case response.ID == 0 || response.ID > c.lastID:
		return errors.New("an answer is to a question that was not asked")
	}
	// Else nobody waits for it any more, as its context has ended.
	return nil
}

func (c *controlClient) roundTrip(ctx context.Context, method string, params any) (wire.ControlResponse, error) {
	var request wire.ControlRequest
	if params != nil {
		data, err := json.Marshal(params)
		if err != nil {
			return wire.ControlResponse{}, fmt.Errorf("cannot encode the parameters of %q: %w", method, err)
		}
		request.Params = data
	}
	answer := make(chan wire.ControlResponse, 1)
	c.mu.Lock()
	c.lastID++
	request.ID, request.Method = c.lastID, method
	c.waiting[request.ID] = answer
	c.mu.Unlock()
	if err := within(ctx, func() error { return c.write(request) }); err != nil {
		c.forget(request.ID)
		if ctx.Err() != nil {
			c.halved.Store(true) // maybe: whoever comes next needs a channel of which that is sure
			go c.channel.Close()
			return wire.ControlResponse{}, context.Cause(ctx)
		}
		return wire.ControlResponse{}, fmt.Errorf("cannot send %q to the guest: %w", method, wire.NoEOF(err))
	}

	select {
	case response := <-answer:
		return response, nil
	case <-c.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return wire.ControlResponse{}, c.err
	case <-ctx.Done():
		c.forget(request.ID)
		return wire.ControlResponse{}, context.Cause(ctx)
	}
}

// write sends a question, one at a time.
func (c *controlClient) write(request wire.ControlRequest) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	return json.NewEncoder(c.channel).Encode(request)
}

func (c *controlClient) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
}
