package agent

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// Terminal describes the terminal that a command is to have.
type Terminal struct {
	// Term is the value of TERM; empty means "xterm-256color".
	Term string
	// Width and Height are in characters; zero means that they are not known.
	Width, Height int
}

// request is the payload of "pty-req", RFC 4254 section 6.2. It names no
// modes: the guest's terminal starts with its kernel's.
func (t *Terminal) request() []byte {
	term := t.Term
	if term == "" {
		term = "xterm-256color"
	}
	return ssh.Marshal(struct {
		Term                          string
		Width, Height, PixelW, PixelH uint32
		Modes                         string
	}{Term: term, Width: uint32(t.Width), Height: uint32(t.Height), Modes: "\x00"})
}

// Resize tells the command's terminal its new size in characters.
func (c *Cmd) Resize(width, height int) error {
	if c.channel == nil || c.Terminal == nil {
		return errors.New("the command has no terminal, or was not started")
	}
	payload := ssh.Marshal(struct{ Width, Height, PixelW, PixelH uint32 }{
		Width: uint32(width), Height: uint32(height),
	})
	if _, err := c.channel.SendRequest("window-change", false, payload); err != nil {
		return fmt.Errorf("cannot resize the command's terminal: %w", wire.NoEOF(err))
	}
	return nil
}
