package secret

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/network/aws"
)

// Sources are where secrets come from.
type Sources struct {
	Getenv func(string) string
	Store  Store
	// Login gets the access token of a login at a provider. Without it, there are none.
	Login func(ctx context.Context, provider string) (Value, error)
	// AWS gets the key of a profile. Without it, there are none.
	AWS func(ctx context.Context, profile string) (aws.Credentials, error)
}

// Value gets the secret of a spec. Its error says what to do; it never has the secret in it, nor what a command has printed.
func (s Sources) Value(ctx context.Context, spec Spec) (Value, error) {
	v, err := s.value(ctx, spec)
	if err != nil {
		return Value{}, fmt.Errorf("getting the secret %s: %w", spec.Name, err)
	}
	return v, nil
}

func (s Sources) value(ctx context.Context, spec Spec) (Value, error) {
	of := spec.Source.Of
	switch spec.Source.Kind {
	case FromEnvironment:
		if s.Getenv(of) == "" {
			return Value{}, fmt.Errorf("the variable %s is not set, or empty: export it", of)
		}
		return s.variable(of)
	case FromFile:
		return s.file(of)
	case FromCommand:
		return fromCommand(ctx, of)
	case FromStore:
		return s.stored(of, "none is stored as "+of)
	case FromLogin:
		if s.Login == nil {
			return Value{}, errors.New("there are no logins here")
		}
		return s.Login(ctx, of)
	case FromAWS:
		if s.AWS == nil {
			return Value{}, errors.New("there are no profiles of AWS here")
		}
		c, err := s.AWS(ctx, of)
		if err != nil {
			return Value{}, err
		}
		return NewAWS(c)
	}
	if s.Getenv(spec.Name) != "" {
		return s.variable(spec.Name)
	}
	return s.stored(spec.Name, "neither is the variable "+spec.Name+" set, nor is a secret stored under that name: export it")
}

func (s Sources) variable(name string) (Value, error) {
	v, err := NewValue(s.Getenv(name))
	if err != nil {
		return Value{}, fmt.Errorf("the value of the variable %s cannot be one: %w", name, err)
	}
	return v, nil
}

// stored says what is missing if nothing is stored.
func (s Sources) stored(name, missing string) (Value, error) {
	v, err := s.Store.Get(name)
	if errors.Is(err, os.ErrNotExist) {
		return Value{}, remedy.Add(errors.New(missing), remedy.StoreSecret, name)
	}
	return v, err
}

func (s Sources) file(path string) (Value, error) {
	if below, ok := strings.CutPrefix(path, homePrefix); ok {
		home := s.Getenv("HOME")
		if !filepath.IsAbs(home) {
			return Value{}, fmt.Errorf("the file %s is in your home, and HOME does not say where that is: set it", path)
		}
		path = filepath.Join(home, below)
	}
	// Not to wait for the writer of a fifo.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return Value{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Value{}, err
	}
	if !info.Mode().IsRegular() {
		return Value{}, fmt.Errorf("%s is no regular file", path)
	}
	v, err := Read(f)
	if err != nil {
		return Value{}, fmt.Errorf("what is in %s cannot be one: %w", path, err)
	}
	return v, nil
}

// commandGrace is how long what a command has started may hold on to its output after it has ended.
const commandGrace = 2 * time.Second

// fromCommand runs a command for what it prints. It may ask on the user's terminal; what is on our standard input is not
// for it.
func fromCommand(ctx context.Context, command string) (Value, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	out := &output{full: end}
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	// Not where the user happens to be, as that may be a project which guests write: what is named there would be theirs.
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, os.Stderr, commandGrace
	if terminal, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil {
		defer terminal.Close()
		cmd.Stdin = terminal
	}
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		return Value{}, fmt.Errorf("its command did not end by itself: %w", cause)
	}
	if err != nil {
		return Value{}, fmt.Errorf("its command failed: %w: run it by itself to see why", err)
	}
	v, err := NewValue(string(out.text))
	if err != nil {
		return Value{}, fmt.Errorf("what its command prints cannot be one: %w", err)
	}
	return v, nil
}

// output is what a command prints, up to what a value can have.
type output struct {
	text []byte
	full context.CancelCauseFunc
}

// Write implements io.Writer.
func (o *output) Write(p []byte) (int, error) {
	if len(o.text)+len(p) >= maxRead {
		err := fmt.Errorf("it prints more than %d bytes", maxValue)
		o.full(err)
		return 0, err
	}
	o.text = append(o.text, p...)
	return len(p), nil
}
