package smoke

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
)

// Check is one thing to be found out about a running guest.
type Check struct {
	Name string
	run  func(context.Context, *guest) (output string, err error)
}

// guest is a running sandbox as the checks see it.
type guest struct {
	client      *agent.Client
	user        image.User
	systemd     bool          // the image's init is systemd
	home        string        // on the host
	share       string        // on the host
	shareInside string        // the same directory in the guest
	checks      string        // directory of executables, in the guest
	ssh         string        // address on the host that leads to the guest's ssh
	sshKey      ssh.Signer    // which it lets in
	sshHost     ssh.PublicKey // by which it proves itself
	resolvConf  string        // the host's resolv.conf(5)
}

// skip is an error that says why a check has nothing to check.
type skip string

func (s skip) Error() string { return string(s) }

// do runs the check. The time limit is the check's own.
func (c Check) do(ctx context.Context, g *guest, limit time.Duration) Result {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %v (--timeout)", limit))
	defer cancel()
	began := time.Now()
	output, err := c.run(ctx, g)
	r := Result{Name: c.Name, Outcome: Passed, Output: output, Seconds: time.Since(began).Seconds()}
	if _, skipped := errors.AsType[skip](err); skipped {
		r.Outcome, r.Message = Skipped, err.Error()
	} else if err != nil {
		r.Outcome, r.Message = Failed, err.Error()
	}
	return r
}

// output runs a command in the guest and returns what it printed. The error
// has what it complained of.
func (g *guest) output(ctx context.Context, argv ...string) (string, error) {
	var complaint lastBytes
	cmd := g.client.Command(ctx, argv...)
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w", argv[0], err)
		if text := strings.TrimSpace(complaint.String()); text != "" {
			err = fmt.Errorf("%w: %s", err, text)
		}
	}
	return string(out), err
}

// maxOutput bounds what is kept of a command's output: the end of it, where
// errors stand.
const maxOutput = 64 << 10

// lastBytes keeps the last maxOutput bytes that are written to it.
type lastBytes struct{ kept []byte }

func (l *lastBytes) Write(p []byte) (int, error) {
	l.kept = append(l.kept, p...)
	if over := len(l.kept) - maxOutput; over > 0 {
		l.kept = append(l.kept[:0], l.kept[over:]...)
	}
	return len(p), nil
}

func (l *lastBytes) String() string { return string(l.kept) }
