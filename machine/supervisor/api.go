package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qmp"
)

// listenAPI serves the API until the returned function is called.
func (v *supervisor) listenAPI() (stop func(), err error) {
	if err := v.makeRuntimeDir(); err != nil {
		return nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	l, err := net.Listen("unix", v.s.Files().API())
	if err != nil {
		return nil, fmt.Errorf("listening for commands: %w", err)
	}
	server := api.NewServer(backend{v})
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			v.log.Error("the API ended", "err", err)
		}
	}()
	return func() {
		// Those who asked for the end are still to be told of it: they wait
		// for the lock, not for an answer of this server.
		server.Close()
	}, nil
}

// backend is what clients of the API may do with a supervisor. What changes the guest
// is carried out to its end whatever becomes of who asked: half of it would leave the
// guest standing.
type backend struct{ v *supervisor }

func (b backend) Stop(_ context.Context, r api.StopRequest) error {
	if r.Grace < 0 {
		return api.Errorf(api.CodeInvalid, "the grace period of %v is negative", r.Grace)
	}
	b.v.requestStop(stopRequest{grace: r.Grace, reason: "it was stopped"})
	return nil
}

func (b backend) Kill(_ context.Context, r api.KillRequest) error {
	if r.Restoring {
		b.v.requestStop(stopRequest{reason: "a snapshot was restored", keep: true, sync: true})
	} else {
		b.v.requestStop(stopRequest{reason: "it was killed"})
	}
	return nil
}

func (b backend) Pause(ctx context.Context) error { return b.v.pause(context.WithoutCancel(ctx)) }

func (b backend) Resume(ctx context.Context) error { return b.v.resume(context.WithoutCancel(ctx)) }

func (b backend) Save(ctx context.Context, r api.SaveRequest) (snapshot.Manifest, error) {
	snap, err := b.v.save(context.WithoutCancel(ctx), r)
	if err != nil {
		b.v.log.Error("a snapshot was not saved", "err", err)
	}
	return snap, err
}

func (b backend) CopyHome(ctx context.Context, r api.CopyHomeRequest) error {
	if !strings.HasPrefix(r.Draft, durable.DraftPrefix) || filepath.Base(r.Draft) != r.Draft {
		return api.Errorf(api.CodeInvalid, "%q is not the name of a draft", r.Draft)
	}
	return b.v.saveHome(context.WithoutCancel(ctx), layout.Sandbox{Dirs: b.v.host.Dirs, Name: r.Draft})
}

func (b backend) Resize(ctx context.Context, want api.Sizes) (api.Sizes, error) {
	if want.MemoryMiB < 0 || want.DiskMiB < 0 {
		return want, api.Errorf(api.CodeInvalid, "sizes of %d and %d MiB make no sense", want.MemoryMiB, want.DiskMiB)
	}
	sizes, err := b.v.resize(ctx, want)
	if err != nil {
		b.v.log.Error("the sandbox was not resized", "err", err)
	}
	return sizes, err
}

func (b backend) Memory(ctx context.Context) (api.Memory, error) {
	if st := b.v.currentState(); st.Status != machine.StatusRunning {
		return api.Memory{}, b.v.s.NotRunning(st)
	}
	bytes, err := b.v.monitor.QueryBalloon(ctx)
	return api.Memory{Bytes: bytes}, err
}

func (b backend) Quotas(context.Context) (api.Quotas, error) {
	var all api.Quotas
	for _, server := range b.v.currentServers() {
		if used, limit := server.Usage(); limit != 0 {
			all.Quotas = append(all.Quotas, api.Quota{Source: server.export.Source, Target: server.export.Target, UsedBytes: used, LimitBytes: limit})
		}
	}
	return all, nil
}

func (b backend) Publish(_ context.Context, p api.Ports) (api.Ports, error) {
	opened, err := b.v.publish(p.Forwards)
	return api.Ports{Forwards: opened}, err
}

func (b backend) Unpublish(_ context.Context, p api.Ports) error { return b.v.unpublish(p.Forwards) }

func (b backend) AutoPublish(_ context.Context, p api.AutoPorts) error { return b.v.setAuto(p.On) }

func (b backend) Mount(ctx context.Context, r api.MountRequest) (api.Mounted, error) {
	mounted, err := b.v.mount(context.WithoutCancel(ctx), r.Share)
	if err != nil {
		b.v.log.Error("a share was not mounted", "err", err)
	}
	return mounted, err
}

func (b backend) Unmount(ctx context.Context, r api.UnmountRequest) error {
	return b.v.unmount(context.WithoutCancel(ctx), r.Target, r.Force)
}

func (b backend) ChangeRules(ctx context.Context, r api.RuleChange) error {
	return b.v.changeRules(context.WithoutCancel(ctx), r)
}

func (b backend) AnswerQuestion(ctx context.Context, a api.QuestionAnswer) error {
	return b.v.answerQuestion(context.WithoutCancel(ctx), a)
}

func (b backend) RevokeSecret(_ context.Context, s api.SecretName) error {
	return b.v.revokeSecret(s.Name)
}

func (b backend) Console(ctx context.Context, w io.Writer) error {
	if err := b.v.awaitConsole(ctx); err != nil {
		return err
	}
	if err := b.v.console.Follow(ctx, w); ctx.Err() == nil {
		return err
	}
	return nil
}

func (b backend) ConsoleInput(ctx context.Context, r api.ConsoleInputRequest, accept api.Accept) error {
	if err := b.v.awaitConsole(ctx); err != nil {
		return err
	}
	w := &consoleWriter{}
	if !b.v.input.acquire(w, r.Take) {
		return api.ErrConsoleTaken
	}
	defer b.v.input.release(w)
	conn, err := accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	return b.v.input.copy(w, conn)
}

func (b backend) SSH(ctx context.Context, accept api.Accept) error {
	state := b.v.currentState()
	if state.Status == machine.StatusPaused {
		// State says so, too, unless the disk was too full for its file.
		return b.v.s.NotRunning(state)
	}
	client := b.v.agentClient()
	if client == nil {
		return api.Errorf(api.CodeNotRunning, "the guest's agent is not connected yet: wait until the sandbox is running")
	}
	key, err := layout.ReadKey(b.v.s.Files().Key(layout.HostKey))
	if err != nil {
		return err
	}
	down, err := accept()
	if err != nil {
		return err
	}
	defer down.Close()
	up := agent.Upstream{Shared: client.SSH(), Dial: b.v.loginToAgent}
	if err := agent.Forward(context.WithoutCancel(ctx), down, up, key); err != nil {
		b.v.log.Info("an ssh connection ended", "err", err)
	}
	return nil
}

// QMP gives the client a monitor of its own. The one connection that QEMU offers is
// shared by all.
func (b backend) QMP(ctx context.Context, r api.QMPRequest, accept api.Accept) error {
	if !b.v.reached(machine.StageQEMU) {
		return api.Errorf(api.CodeNotRunning, "QEMU does not answer on its monitor yet: try again in a moment")
	}
	conn, err := accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	o := qmp.ServeOptions{Allow: allowHarmless}
	if r.Unsafe {
		o.Allow = b.v.logDangerous
	}
	if err := qmp.Serve(context.WithoutCancel(ctx), conn, b.v.monitor, o); err != nil {
		b.v.log.Info("a QMP connection ended", "err", err)
	}
	return nil
}

// makeRuntimeDir makes the sandbox's runtime directory, empty.
func (v *supervisor) makeRuntimeDir() error {
	if err := os.RemoveAll(v.s.Files().RuntimeDir()); err != nil {
		return err
	}
	return os.MkdirAll(v.s.Files().RuntimeDir(), 0o700)
}
