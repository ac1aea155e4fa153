package supervisor

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/network/secret"
)

// renewals get secrets again that are good for a time only. They are read here, as the network's process has no files and
// starts nothing, and are put into requests there.
type renewals struct {
	end   context.CancelFunc // nil before they are kept
	ended sync.WaitGroup
	mu    sync.Mutex
	lost  map[string]bool // names of those that were revoked
}

const (
	// renewalLook is how long lies between two looks at the clock on the wall, which goes on while the machine sleeps.
	renewalLook = 20 * time.Second
	// renewalRetry is when a source is asked again that had nothing, as without a network.
	renewalRetry = time.Minute
)

// keepSecrets gets each secret with a time to live again when that is over, until closeSecrets.
func (v *supervisor) keepSecrets(ctx context.Context) error {
	specs, err := v.config.SecretSpecs()
	ctx, v.renewals.end = context.WithCancel(context.WithoutCancel(ctx))
	for _, spec := range specs {
		if spec.Source.TTL != 0 && v.secrets[spec.Name] != nil && !slices.Contains(v.config.Revoked, spec.Name) {
			v.renewals.ended.Go(func() { v.keepSecret(ctx, spec) })
		}
	}
	return err
}

func (v *supervisor) keepSecret(ctx context.Context, spec secret.Spec) {
	look := time.NewTicker(renewalLook)
	defer look.Stop()
	due := wallClock().Add(spec.Source.TTL)
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if wallClock().Before(due) {
			continue
		}
		due = wallClock().Add(spec.Source.TTL)
		value, err := v.host.Sources().Value(ctx, spec)
		if err == nil {
			err = v.renewSecret(spec.Name, value)
		}
		if err != nil && ctx.Err() == nil {
			v.log.Warn("a secret cannot be got again, and the guest's requests have the one of before", "secret", spec.Name, "err", err)
			due = wallClock().Add(renewalRetry)
		}
	}
}

// wallClock is the time without what makes it go on evenly.
func wallClock() time.Time { return time.Now().Round(0) }

// renewSecret puts another value in the place of a secret's: for the network's process, for the one that may take its place,
// and for the next run of the supervisor, which counts on the descriptor.
func (v *supervisor) renewSecret(name string, value secret.Value) error {
	v.renewals.mu.Lock()
	defer v.renewals.mu.Unlock()
	if v.renewals.lost[name] {
		return nil
	}
	f, err := value.File()
	if err != nil {
		return err
	}
	defer f.Close()
	if err := replaceFile(v.secrets[name], f); err != nil {
		return err
	}
	return v.gateway.SetSecret(name, v.secrets[name])
}

// loseSecret takes a secret away for good.
func (v *supervisor) loseSecret(name string) error {
	v.renewals.mu.Lock()
	defer v.renewals.mu.Unlock()
	if v.renewals.lost == nil {
		v.renewals.lost = map[string]bool{}
	}
	v.renewals.lost[name] = true
	if err := v.gateway.SetSecret(name, nil); err != nil {
		return err
	}
	if f := v.secrets[name]; f != nil {
		return forget(f)
	}
	return nil
}

// closeSecrets ends what keeps them.
func (v *supervisor) closeSecrets() {
	if v.renewals.end != nil {
		v.renewals.end()
	}
	v.renewals.ended.Wait()
}

// forget ends what a file holds in memory.
func forget(f *os.File) error {
	nothing, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer nothing.Close()
	return replaceFile(f, nothing)
}

// replaceFile makes a file another one, and leaves its descriptor, which the next run of the supervisor counts on.
func replaceFile(f, by *os.File) error {
	return unix.Dup3(int(by.Fd()), int(f.Fd()), unix.O_CLOEXEC)
}
