package smoke

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Where the guest's user finds the directories of a boot, in the home.
const (
	shareName  = "smoke-share"
	checksName = "smoke-checks"
)

// askPatience is for the answer to a question that needs no work. A guest
// under emulation on a busy machine has been seen to stall for seconds.
const askPatience = 30 * time.Second

var errInterrupted = errors.New("the smoke test was interrupted")

// booting is one boot while it lasts.
type booting struct {
	host    *machine.Host
	target  Target
	verify  func() error
	options Options
	boot    Boot
	step    *progress.Step

	began   time.Time // when the start was asked for
	sandbox *machine.Sandbox
	hold    *machine.Hold
	logs    []*os.File // stay readable when the sandbox removes itself
}

// run boots the image, and leaves nothing behind but b.boot and artifacts.
func (b *booting) run(ctx context.Context) {
	b.step = b.options.Progress.Start(b.boot.String(), 0)
	defer b.step.Fail()
	began := time.Now()
	b.bootAndCheck(ctx)
	b.end(context.WithoutCancel(ctx))
	b.boot.Seconds = time.Since(began).Seconds()
	b.boot.judge()
	b.keepLogs()
	if b.boot.Outcome == Passed {
		b.step.Done()
	}
}

func (b *booting) bootAndCheck(ctx context.Context) {
	b.step.Note("verifying the image")
	began := time.Now()
	if err := b.verify(); err != nil {
		b.add(resultImage, began, b.orInterrupted(ctx, Failed), err)
		return
	}
	b.add(resultImage, began, Passed, nil)
	b.began = time.Now()
	g, err := b.start(ctx)
	if g != nil {
		defer os.RemoveAll(g.share)
	}
	b.openLogs()
	if err != nil {
		outcome := Unfit
		if errors.Is(err, api.ErrGuest) {
			outcome = Failed
			err = b.pointToArtifacts(err)
		}
		b.add(resultAgent, b.began, b.orInterrupted(ctx, outcome), err)
		return
	}
	defer g.client.Close()
	b.add(resultAgent, b.began, Passed, nil)
	if b.awaitSystem(ctx, g) && b.check(ctx, g) {
		b.powerDown(ctx, g)
	}
}

// add notes a result.
func (b *booting) add(name string, began time.Time, o Outcome, err error) {
	r := Result{Name: name, Outcome: o, Seconds: time.Since(began).Seconds()}
	if err != nil {
		r.Message = err.Error()
	}
	b.boot.add(r)
}

// reached notes a stage.
func (b *booting) reached(name string, since time.Time) {
	b.step.Note(name)
	b.boot.Stages = append(b.boot.Stages, Stage{name, time.Since(since).Seconds()})
}

func (b *booting) orInterrupted(ctx context.Context, o Outcome) Outcome {
	if ctx.Err() != nil {
		return Unfit
	}
	return o
}

// start boots a sandbox until commands can run. The guest that it returns may
// have to be cleaned up after an error, too.
func (b *booting) start(ctx context.Context) (*guest, error) {
	img := b.target.Image
	g := &guest{user: img.Manifest.User, systemd: img.Manifest.Readiness.System == "systemd"}
	g.shareInside, g.checks = path.Join(g.user.Home, shareName), path.Join(g.user.Home, checksName)
	var err error
	if g.sshKey, err = newSSHKey(); err != nil {
		return nil, err
	}
	if g.share, err = makeShare(); err != nil {
		return nil, err
	}
	config, err := b.host.Resolve(machine.Config{
		Name: fmt.Sprintf("smoke-%08x", rand.Uint32()),
		Life: machine.Life{ReadyTimeout: b.options.Timeout, Remove: true},
	}, img)
	if err != nil {
		return g, err
	}
	config.Image = b.target.Ref // which may be a directory
	config.AuthorizedKeys = []string{string(ssh.MarshalAuthorizedKey(g.sshKey.PublicKey()))}
	config.Shares = []virtiofs.Share{{Source: g.share, Target: g.shareInside}}
	if dir := b.options.CheckDir; dir != nil {
		checks := *dir
		checks.Target, checks.ReadOnly = g.checks, true
		config.Shares = append(config.Shares, checks)
	}
	if _, err := b.host.Plan(ctx, config, img); err != nil {
		return g, err
	}
	if b.sandbox, err = b.host.Create(config); err != nil {
		return g, err
	}
	b.hold, err = b.sandbox.Start(ctx, machine.StartOptions{
		Until: machine.StageAgent, Hold: true,
		Stage: func(stage string) { b.reached(stage, b.began) }, Note: b.options.Note,
	})
	b.boot.describe(b.sandbox.State())
	if err != nil {
		return g, err
	}
	return g, b.connect(ctx, g)
}

// makeShare makes a directory for the guest to share. QEMU's argument and the
// host's own files must name it alike.
func makeShare() (string, error) {
	dir, err := os.MkdirTemp("", "sandbox-smoke-")
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(dir)
}

// connect fills in what is known only of a guest that runs.
func (b *booting) connect(ctx context.Context, g *guest) error {
	var err error
	if g.sshHost, err = b.sandbox.HostKey(); err != nil {
		return err
	}
	text, err := os.ReadFile(network.ResolverFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	g.resolvConf, g.home = string(text), b.sandbox.Files().Home()
	g.ssh = net.JoinHostPort("127.0.0.1", strconv.Itoa(b.sandbox.State().SSHPort))
	g.client, err = b.sandbox.Dial(ctx)
	return err
}

// awaitSystem waits for the second stage of readiness. It returns false if the
// guest is lost.
func (b *booting) awaitSystem(ctx context.Context, g *guest) bool {
	limited, cancel := context.WithDeadlineCause(ctx, b.began.Add(b.options.Timeout),
		fmt.Errorf("its services did not run after %v (--timeout)", b.options.Timeout))
	defer cancel()
	_, err := g.client.Wait(limited, agent.StageSystem)
	if err != nil {
		return b.accuse(ctx, g, Result{Name: resultSystem, Outcome: Failed, Message: err.Error(), Seconds: time.Since(b.began).Seconds()})
	}
	b.reached(machine.StageSystem, b.began)
	b.add(resultSystem, b.began, Passed, nil)
	return true
}

// check runs all checks. It returns false if the guest is lost.
func (b *booting) check(ctx context.Context, g *guest) bool {
	b.step.Note("built-in checks")
	ours := builtin()
	for i, c := range append(ours, b.options.Checks...) {
		if i >= len(ours) { // the user's own may take their time
			b.step.Note(c.Name)
		}
		r := c.do(ctx, g, b.options.Timeout)
		if r.Outcome != Failed {
			b.boot.add(r)
		} else if !b.accuse(ctx, g, r) {
			return false
		}
	}
	if b.boot.count(Failed) > 0 {
		b.keepJournal(ctx, g)
	}
	return true
}

// accuse adds a failed result, after asking whether it is the image's fault. It
// returns false if the guest is lost, and nothing more can be found out.
func (b *booting) accuse(ctx context.Context, g *guest, r Result) bool {
	asking, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	_, err := g.client.Status(asking)
	switch {
	case ctx.Err() != nil:
		r.Outcome, r.Message = Unfit, errInterrupted.Error()
	case err != nil:
		// It may just be ending.
		_ = b.sandbox.Wait(asking)
		if st := b.sandbox.State(); !b.sandbox.Exists() {
			r.Message = "the guest powered itself off: " + r.Message
		} else if st.Status == machine.StatusCrashed {
			r.Outcome, r.Message = Unfit, st.Reason
		}
	}
	b.boot.add(r)
	return err == nil
}

// powerDown asks the guest to end itself. A sandbox that has ended in good order is
// gone then, because its configuration says so; any other is still there.
func (b *booting) powerDown(ctx context.Context, g *guest) {
	b.step.Note("powering down")
	began := time.Now()
	limited, cancel := context.WithTimeoutCause(ctx, machine.DefaultGrace,
		fmt.Errorf("the guest had not powered itself off after %v", machine.DefaultGrace))
	defer cancel()
	err := g.client.PowerOff(limited)
	if err == nil {
		err = b.sandbox.Wait(limited)
	}
	switch {
	case err != nil:
		b.add(resultPowerDown, began, b.orInterrupted(ctx, Failed), err)
		b.keepJournal(ctx, g)
	case b.sandbox.Exists():
		b.add(resultPowerDown, began, Unfit, errors.New(b.sandbox.State().Reason))
	default:
		b.reached(StageOff, began)
		b.add(resultPowerDown, began, Passed, nil)
	}
}

// end ends what still runs, and removes it.
func (b *booting) end(ctx context.Context) {
	if b.hold != nil {
		b.hold.Close()
	}
	if b.sandbox == nil {
		return
	}
	if err := b.sandbox.Remove(ctx, true); err != nil {
		b.options.Note(fmt.Sprintf("%s could not be removed: %v", b.sandbox.Name, err))
	}
}
