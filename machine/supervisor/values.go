package supervisor

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/network/secret"
)

// values are those of the guest's secrets as they are now, each in a file in memory, of which the network's process alone
// reads those that last. The others are got again here, as that process has no files and starts nothing.
type values struct {
	mu    sync.Mutex // is held by whoever changes a value, or takes a secret away
	files map[string]*os.File
	tell  func(name string, value *os.File) error // the network's process, and the one that may take its place

	end  context.CancelFunc // ends what keeps them; nil before it has begun
	kept sync.WaitGroup
}

const (
	// valueLook is how long lies between two looks at the clock on the wall, which goes on while the machine sleeps.
	valueLook = 20 * time.Second
	// valueRetry is when a source is asked again that had nothing, as without a network.
	valueRetry = time.Minute
)

// source is where a secret's value is got again.
type source struct {
	name  string                                      // the secret's
	life  time.Duration                               // after which that is done; at each look, if it is less
	value func(context.Context) (secret.Value, error) // which may be good with an error, too
	holds bool                                        // without a value, the one of before is good
}

// sources are those of the secrets that do not last as long as the sandbox runs.
func (v *supervisor) sources() (all []source, err error) {
	specs, err := v.config.SecretSpecs()
	for _, spec := range specs {
		s := source{name: spec.Name}
		switch {
		case slices.Contains(v.config.Revoked, spec.Name):
			continue
		case spec.Source.Kind == secret.FromLogin:
			s.value = func(ctx context.Context) (secret.Value, error) { return v.accessToken(ctx, spec.Source.Of) }
		case spec.AWS():
			s.holds = true
			s.value = func(ctx context.Context) (secret.Value, error) { return v.keyOfAWS(ctx, spec) }
		case spec.Source.TTL != 0:
			s.life, s.holds = spec.Source.TTL, true
			s.value = func(ctx context.Context) (secret.Value, error) { return v.host.Sources().Value(ctx, spec) }
		default:
			continue
		}
		all = append(all, s)
	}
	return all, err
}

// accessToken is that of the user's login, which is good for some minutes. With an error, it is the one that there is, if it
// has not expired.
func (v *supervisor) accessToken(ctx context.Context, provider string) (secret.Value, error) {
	l, err := v.host.Keeper(v.upstream).Login(ctx, provider)
	return l.Access, err
}

// keyOfAWS is that of a profile, which is got again before the one that there is ends.
func (v *supervisor) keyOfAWS(ctx context.Context, spec secret.Spec) (secret.Value, error) {
	held := v.values.now(spec.Name)
	if c, err := held.AWS(); err == nil && c.Fresh(wallClock()) {
		return held, nil
	}
	c, err := v.host.AWS(ctx, v.upstream, spec.Source.Of)
	if err != nil {
		return secret.Value{}, err
	}
	return secret.NewAWS(c)
}

// openValues gets the values that nobody handed over. One that there is not is no reason not to start: the guest's
// requests are refused until the user has logged in again.
func (v *supervisor) openValues(ctx context.Context) error {
	all, err := v.sources()
	for _, s := range all {
		if v.values.files[s.name] != nil {
			continue
		}
		value, bad := s.value(ctx)
		if bad != nil {
			v.log.Warn("a secret cannot be got", "secret", s.name, "err", bad)
		}
		if !value.IsZero() {
			f, bad := value.File()
			if err = errors.Join(err, bad); bad == nil {
				v.values.files[s.name] = f
			}
		}
	}
	return err
}

// keepValues gets values again in time, until closeValues.
func (v *supervisor) keepValues(ctx context.Context) error {
	all, err := v.sources()
	ctx, v.values.end = context.WithCancel(context.WithoutCancel(ctx))
	for _, s := range all {
		v.values.kept.Go(func() { v.keepValue(ctx, s) })
	}
	return err
}

func (v *supervisor) keepValue(ctx context.Context, s source) {
	look := time.NewTicker(valueLook)
	defer look.Stop()
	last := v.values.now(s.name)
	said := ""
	for due := wallClock().Add(s.life); ; {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		if wallClock().Before(due) {
			continue
		}
		due = wallClock().Add(s.life)
		value, err := s.value(ctx)
		if ctx.Err() != nil {
			return
		}
		if value != last && !(value.IsZero() && s.holds) {
			bad := v.setValue(s.name, value)
			if err = errors.Join(err, bad); bad == nil {
				last = value
			}
		}
		words := ""
		if err != nil {
			due, words = wallClock().Add(valueRetry), err.Error()
		}
		if words != "" && words != said {
			v.log.Warn("a secret cannot be got again", "secret", s.name, "guest has one", !last.IsZero(), "err", err)
		}
		said = words
	}
}

// now is the value of a secret, or none.
func (vs *values) now(name string) secret.Value {
	vs.mu.Lock()
	defer vs.mu.Unlock()
	if vs.files[name] == nil {
		return secret.Value{}
	}
	value, _ := secret.ReadFile(vs.files[name]) // an error is that there is none
	return value
}

// wallClock is the time without what makes it go on evenly.
func wallClock() time.Time { return time.Now().Round(0) }

// setValue puts another value in the place of a secret's, or none.
func (v *supervisor) setValue(name string, value secret.Value) error {
	v.values.mu.Lock()
	defer v.values.mu.Unlock()
	if slices.Contains(v.config.Revoked, name) {
		return nil
	}
	return v.values.set(name, value)
}

// set does so for the network's process and for the next run of the supervisor, which counts on the descriptor. The
// caller holds the lock.
func (vs *values) set(name string, value secret.Value) error {
	held := vs.files[name]
	if value.IsZero() {
		err := vs.tell(name, nil)
		if err == nil && held != nil {
			err = forget(held)
		}
		return err
	}
	f, err := value.File()
	if err != nil {
		return err
	}
	if held == nil {
		vs.files[name] = f
		return vs.tell(name, f)
	}
	defer f.Close()
	if err := replaceFile(held, f); err != nil {
		return err
	}
	return vs.tell(name, held)
}

// closeValues ends what keeps them, after the answer of a provider that is being asked: it may be all that is good.
func (v *supervisor) closeValues() {
	if v.values.end != nil {
		v.values.end()
	}
	v.values.kept.Wait()
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

// replaceFile makes a file another one, and leaves its descriptor.
func replaceFile(f, by *os.File) error {
	return unix.Dup3(int(by.Fd()), int(f.Fd()), unix.O_CLOEXEC)
}
