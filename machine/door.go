package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/transfer"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// Open returns the caller's sandboxes, those of the command line. There is nothing to
// close.
func Open() (*Host, error) {
	dirs, err := layout.DefaultDirs(os.Getenv, os.Getuid())
	if err != nil {
		return nil, err
	}
	return OpenHost(dirs)
}

// Run runs a command in a sandbox that is made for it and removed afterwards, also
// when this process is killed, and returns what the command wrote to its standard
// output. The configuration is completed as by Resolve. The error is an
// *agent.ExitError if the command ran and failed.
func (h *Host) Run(ctx context.Context, c Config, argv ...string) (output []byte, err error) {
	c.Remove = true
	s, hold, err := h.launch(ctx, c, true)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, hold.Close(), s.Wait(context.WithoutCancel(ctx))) }()
	return s.Output(ctx, argv...)
}

// Launch makes a sandbox and starts it. Commands can run in it when it returns; it
// outlives this process. The configuration is completed as by Resolve. A sandbox that
// does not start is removed again.
func (h *Host) Launch(ctx context.Context, c Config) (*Sandbox, error) {
	s, _, err := h.launch(ctx, c, false)
	return s, err
}

func (h *Host) launch(ctx context.Context, c Config, hold bool) (*Sandbox, *Hold, error) {
	img, err := h.Image(c.Image)
	if err != nil {
		return nil, nil, err
	}
	if c, err = h.Resolve(c, img); err != nil {
		return nil, nil, err
	}
	if _, err := h.Plan(ctx, c, img); err != nil { // everything that can be known before
		return nil, nil, err
	}
	secrets, err := h.Secrets(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	s, err := h.Create(c)
	if err != nil {
		return nil, nil, err
	}
	held, err := s.Start(ctx, StartOptions{Until: StageAgent, Hold: hold, Secrets: secrets})
	if err != nil {
		return nil, nil, errors.Join(err, s.Remove(context.WithoutCancel(ctx), true))
	}
	return s, held, nil
}

// Output runs a command in the running sandbox, as its user and in the home, and
// returns what it wrote to its standard output, of which there may be as much as for
// agent.Cmd.Output. The error is an *agent.ExitError if the command ran and failed,
// and ends with the beginning of what it wrote to its standard error.
func (s *Sandbox) Output(ctx context.Context, argv ...string) ([]byte, error) {
	client, err := s.Dial(ctx)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	stderr := &complaint{}
	cmd := client.Command(ctx, argv...)
	cmd.Stderr = stderr
	out, err := cmd.Output()
	return out, stderr.explain(err)
}

// maxComplaint bounds what of a failed command's standard error is kept, in bytes.
const maxComplaint = 8 << 10

// complaint keeps the beginning of what is written to it.
type complaint struct {
	mu   sync.Mutex // a command that was given up may still write
	text []byte
}

func (c *complaint) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.text = append(c.text, p[:min(len(p), maxComplaint-len(c.text))]...)
	return len(p), nil
}

// explain adds what was written to an error.
func (c *complaint) explain(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if text := bytes.TrimSpace(c.text); err != nil && len(text) > 0 {
		return fmt.Errorf("%w\n%s", err, text)
	}
	return err
}

// Stream runs a command in the running sandbox, as its user and in the home, with the
// given streams, each of which may be nil. What else can be asked for, such as a
// terminal, is with Dial and agent.Cmd.
func (s *Sandbox) Stream(ctx context.Context, stdin io.Reader, stdout, stderr io.Writer, argv ...string) error {
	client, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	cmd := client.Command(ctx, argv...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	return cmd.Run()
}

// CopyIn copies a file or directory of this machine into the running sandbox, where
// dest starts at its user's home. More can be asked for with Dial and package
// transfer.
func (s *Sandbox) CopyIn(ctx context.Context, source, dest string) error {
	return s.copy(ctx, source, dest, transfer.To)
}

// CopyOut copies a file or directory of the running sandbox, where source starts at
// its user's home, to this machine. No link that a guest can have made is followed.
func (s *Sandbox) CopyOut(ctx context.Context, source, dest string) error {
	return s.copy(ctx, source, dest, transfer.From)
}

func (s *Sandbox) copy(ctx context.Context, source, dest string, do func(context.Context, *agent.Client, string, string, transfer.Options) error) error {
	shared, err := s.host.SharedDirs()
	if err != nil {
		return err
	}
	client, err := s.Dial(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return do(ctx, client, source, dest, transfer.Options{Shared: shared})
}

// Fork makes a sandbox that goes on from where the running one is now, and starts it.
// It has a copy of the home, and may only read the shares. Its name is made up if
// empty.
func (s *Sandbox) Fork(ctx context.Context, name string) (*Sandbox, error) {
	if name == "" {
		name = s.host.NewName()
	}
	if err := s.host.CheckFree(name); err != nil { // before anything is saved
		return nil, err
	}
	from, err := s.Forkable(ctx, "", false)
	if err != nil {
		return nil, err
	}
	fork, err := from.Fork(ctx, ForkOptions{Name: name, Last: true})
	if err = errors.Join(err, from.Close()); err != nil {
		return nil, err
	}
	if _, err := fork.Start(ctx, StartOptions{Until: StageAgent}); err != nil {
		return nil, errors.Join(err, fork.Remove(context.WithoutCancel(ctx), true))
	}
	return fork, nil
}
