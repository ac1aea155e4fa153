package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/crypto/ssh"
)

// controlClient matches the answers on one control channel to its questions.
type controlClient struct {
	channel ssh.Channel
	done    chan struct{} // closed when no more answers will come

	mu      sync.Mutex // guards what follows and the order of writing
	encoder *json.Encoder
	lastID  uint64
	waiting map[uint64]chan<- ControlResponse
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
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	accepted, err := channel.SendRequest("subsystem", true, ssh.Marshal(struct{ Name string }{SubsystemControl}))
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err == nil && !accepted {
		err = errors.New("the guest refuses it")
	}
	if err != nil {
		channel.Close()
		return nil, fmt.Errorf("cannot open the agent's control channel: %w", c.explain(err))
	}
	control := &controlClient{
		channel: channel,
		done:    make(chan struct{}),
		encoder: json.NewEncoder(channel),
		waiting: make(map[uint64]chan<- ControlResponse),
	}
	go control.receive()
	return control, nil
}

func (c *controlClient) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// receive hands out answers until the channel ends.
func (c *controlClient) receive() {
	decoder := json.NewDecoder(c.channel)
	for {
		var response ControlResponse
		err := decoder.Decode(&response)
		c.mu.Lock()
		if err != nil {
			c.err = fmt.Errorf("the agent's control channel broke: %w", noEOF(err))
			c.mu.Unlock()
			close(c.done)
			c.channel.Close()
			return
		}
		answer := c.waiting[response.ID]
		delete(c.waiting, response.ID)
		c.mu.Unlock()
		// Nobody waits for an answer whose context ended in the meantime.
		if answer != nil {
			answer <- response
		}
	}
}

func (c *controlClient) roundTrip(ctx context.Context, method string, params any) (ControlResponse, error) {
	var request ControlRequest
	if params != nil {
		data, err := json.Marshal(params)
		if err != nil {
			return ControlResponse{}, fmt.Errorf("cannot encode the parameters of %q: %w", method, err)
		}
		request.Params = data
	}
	answer := make(chan ControlResponse, 1)

	c.mu.Lock()
	c.lastID++
	request.ID, request.Method = c.lastID, method
	c.waiting[request.ID] = answer
	err := c.encoder.Encode(request)
	if err != nil {
		delete(c.waiting, request.ID)
	}
	c.mu.Unlock()
	if err != nil {
		return ControlResponse{}, fmt.Errorf("cannot send %q to the guest: %w", method, noEOF(err))
	}

	select {
	case response := <-answer:
		return response, nil
	case <-c.done:
		c.mu.Lock()
		defer c.mu.Unlock()
		return ControlResponse{}, c.err
	case <-ctx.Done():
		c.mu.Lock()
		delete(c.waiting, request.ID)
		c.mu.Unlock()
		return ControlResponse{}, context.Cause(ctx)
	}
}

// noEOF names the end of a stream where more was to come.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
