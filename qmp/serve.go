package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// Backend carries out what a client of Serve asks for. A *Client is one, and so is a domain of libvirt.
type Backend interface {
	Greeting() Greeting
	RunContext(ctx context.Context, command []byte) ([]byte, error)
	Events(ctx context.Context) (<-chan Event, error)
}

var _ Backend = (*Client)(nil)

// ServeOptions are the choices of Serve. The zero value is good.
type ServeOptions struct {
	// Allow returns why a command is not carried out, or nil. Without it, all are.
	Allow func(command string) error
}

// Serve speaks QMP on conn as QEMU does, with the greeting, the negotiation, the client's own ids and
// events, so that any QMP tool can be the client; many may share one backend. It returns nil when
// the client has left, and closes conn in any case. File descriptors are not passed on.
func Serve(ctx context.Context, conn net.Conn, b Backend, o ServeOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	defer conn.Close()
	s := &server{conn: conn, backend: b, allow: o.Allow}
	if s.allow == nil {
		s.allow = func(string) error { return nil }
	}
	commands := make(chan json.RawMessage)
	read := make(chan error, 1)
	go func() {
		defer close(commands)
		read <- s.read(ctx, commands)
	}()
	greeting := s.backend.Greeting()
	greeting.Capabilities = []string{} // out-of-band commands are not among what we pass on
	err := s.say(map[string]any{"QMP": greeting})
	for err == nil {
		text, ok := <-commands
		if !ok {
			return <-read
		}
		err = s.command(ctx, text)
	}
	if ctx.Err() != nil || hungUp(err) {
		return nil
	}
	return err
}

// server is one client's connection.
type server struct {
	conn    net.Conn
	backend Backend
	allow   func(string) error
	ready   bool // capabilities were negotiated

	writing sync.Mutex
}

func (s *server) read(ctx context.Context, commands chan<- json.RawMessage) error {
	in := json.NewDecoder(s.conn)
	for {
		var text json.RawMessage
		if err := in.Decode(&text); err != nil {
			if _, ok := errors.AsType[*json.SyntaxError](err); ok {
				return s.refuse(nil, ClassGenericError, fmt.Sprintf("JSON parse error, %v", err))
			}
			return nil // it left
		}
		select {
		case commands <- text:
		case <-ctx.Done():
			return nil
		}
	}
}

// command carries out one command. Its error is the connection's end.
func (s *server) command(ctx context.Context, text []byte) error {
	c, err := ParseCommand(text)
	switch {
	case err != nil:
		return s.refuse(nil, ClassGenericError, err.Error())
	case c.Name == "qmp_capabilities" && s.ready:
		return s.refuse(c.ID, ClassCommandNotFound, "Capabilities negotiation is already complete, command ignored")
	case c.Name == "qmp_capabilities":
		return s.begin(ctx, c.ID)
	case !s.ready:
		return s.refuse(c.ID, ClassCommandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'")
	}
	if err := s.allow(c.Name); err != nil {
		return s.refuse(c.ID, ClassGenericError, err.Error())
	}
	reply, err := s.backend.RunContext(ctx, text)
	var refused *Error
	switch {
	case errors.As(err, &refused):
		return s.refuse(c.ID, refused.Class, refused.Desc)
	case err != nil:
		return errors.Join(err, s.refuse(c.ID, ClassGenericError, err.Error()))
	}
	return s.write(reply)
}

// begin ends the negotiation. From here on the client gets events.
func (s *server) begin(ctx context.Context, id json.RawMessage) error {
	events, err := s.backend.Events(ctx)
	if err != nil {
		return err
	}
	s.ready = true
	if err := s.say(okReply{Return: json.RawMessage("{}"), ID: id}); err != nil {
		return err
	}
	go func() {
		defer s.conn.Close() // without events there is no monitor
		for e := range events {
			if s.say(eventMessage(e)) != nil {
				return
			}
		}
	}()
	return nil
}

type okReply struct {
	Return json.RawMessage `json:"return"`
	ID     json.RawMessage `json:"id,omitempty"`
}

// eventMessage is the event as QEMU sends it, in which one without data has no member for it.
func eventMessage(e Event) any {
	message := map[string]any{"event": e.Event, "timestamp": e.Timestamp}
	if e.Data != nil {
		message["data"] = e.Data
	}
	return message
}

func (s *server) refuse(id json.RawMessage, class, desc string) error {
	message := map[string]any{"error": map[string]string{"class": class, "desc": desc}}
	if id != nil {
		message["id"] = id
	}
	return s.say(message)
}

func (s *server) say(message any) error {
	text, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return s.write(text)
}

func (s *server) write(text []byte) error {
	s.writing.Lock()
	defer s.writing.Unlock()
	_, err := s.conn.Write(append(text, "\r\n"...))
	if errors.Is(err, net.ErrClosed) {
		return io.EOF
	}
	return err
}
