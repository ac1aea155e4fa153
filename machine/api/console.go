package api

import (
	"context"
	"errors"
	"io"
	"net"
)

// ConsoleInputRequest asks to be the one who writes to the console. The stream
// carries input only: any number can read, and a writer learns that another one took
// over by the end of the stream.
type ConsoleInputRequest struct {
	Take bool `json:"take,omitempty"` // from whoever writes to it
}

const (
	console      call[nothing, nothing]             = "console"
	consoleInput call[ConsoleInputRequest, nothing] = "console-input"
)

// Console copies the console to w, from its beginning until the sandbox ends.
func (c *Client) Console(ctx context.Context, w io.Writer) error {
	resp, err := console.send(ctx, c, nothing{})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // the sandbox has ended
	}
	return err
}

// ConsoleInput fails with ErrConsoleTaken while somebody else writes. The caller
// closes the connection.
func (c *Client) ConsoleInput(ctx context.Context, r ConsoleInputRequest) (net.Conn, error) {
	return consoleInput.open(ctx, c, r)
}
