package supervisor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// life is a supervisor that runs in this process, with fake programs.
type life struct {
	t      *testing.T
	s      *machine.Sandbox
	v      *supervisor
	guest  *fakeGuest
	calls  *api.Client
	stages chan string
	ended  chan struct{} // closed when the following are set
	again  rerun
	err    error

	mu    sync.Mutex
	notes []string
}

// newLife makes a sandbox; begin starts it.
func newLife(t *testing.T, change func(*machine.Config)) *life {
	t.Helper()
	fakePrograms(t)
	host := testHost(t)
	c := testConfig("a")
	c.Image, c.Network = image.Ref{Dir: fakeImage(t)}, network.ModeNone
	if change != nil {
		change(&c)
	}
	s, err := host.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	return lifeOf(t, host, s, api.StartRequest{Name: s.Name})
}

// lifeOf is newLife for a sandbox that there is.
func lifeOf(t *testing.T, host *machine.Host, s *machine.Sandbox, r api.StartRequest) *life {
	t.Helper()
	l := &life{t: t, s: s, guest: newFakeGuest(t, s.Files()), stages: make(chan string, 16), ended: make(chan struct{})}
	var err error
	if l.v, err = newSupervisor(host, s, r); err != nil {
		t.Fatal(err)
	}
	l.v.launch, l.v.report = l.guest.launch, l.report
	l.calls = &api.Client{Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.Files().API())
	}}
	return l
}

// fakeImage makes an image of which nothing is ever run.
func fakeImage(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	file := func(name string) image.File {
		writeFile(t, filepath.Join(dir, name), name)
		f, err := image.Describe(t.Context(), dir, name)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	m := image.Manifest{
		Version: image.Version, Name: "tiny", System: string(qemu.HostArch()) + "-linux", Kernel: file("kernel"), Initrd: file("initrd"),
		Store: image.StoreFile{File: file("store"), Format: "erofs", Label: "s", Mount: "/"}, Init: "/sbin/init",
		User:  image.User{Name: "agent", UID: 1000, GID: 1000, Home: "/home/agent", Shell: "/bin/sh"},
		Agent: image.Agent{Port: 1024}, Provenance: image.Provenance{Builder: "test", Built: time.Unix(1, 0).UTC()},
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, image.ManifestFile), string(data))
	return dir
}

func (l *life) report(r api.Report) {
	if r.Stage != "" {
		l.stages <- r.Stage
	}
	if r.Note != "" {
		l.mu.Lock()
		l.notes = append(l.notes, r.Note)
		l.mu.Unlock()
	}
}

// begin starts the sandbox, whose lock is held as long as it runs.
func (l *life) begin() {
	l.t.Helper()
	lock, err := l.s.Files().Lock()
	if err != nil {
		l.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer close(l.ended)
		defer lock.Close()
		l.again, l.err = l.v.run(ctx)
	}()
	l.t.Cleanup(func() {
		l.v.requestStop(stopRequest{reason: "the test is over"})
		<-l.ended
		cancel()
	})
}

// await returns when the start has reached the stage.
func (l *life) await(stage string) {
	l.t.Helper()
	for {
		select {
		case reached := <-l.stages:
			if reached == stage {
				return
			}
		case <-l.ended:
			l.t.Fatalf("the sandbox ended before the stage %s: %v; %+v", stage, l.err, l.s.State())
		}
	}
}

// started returns a sandbox in which commands can run.
func started(t *testing.T, change func(*machine.Config)) *life {
	t.Helper()
	l := newLife(t, change)
	l.begin()
	l.await(machine.StageAgent)
	return l
}

// end waits for the end, and returns the state that is left.
func (l *life) end() machine.State {
	l.t.Helper()
	<-l.ended
	return l.s.State()
}

// expect compares how the sandbox ended.
func (l *life) expect(status machine.Status, reason string) {
	l.t.Helper()
	if st := l.end(); st.Status != status || !strings.Contains(st.Reason, reason) {
		l.t.Errorf("the sandbox is %s because %q, want %s because %q", st.Status, st.Reason, status, reason)
	}
	if _, err := os.Stat(l.s.Files().RuntimeDir()); !errors.Is(err, fs.ErrNotExist) {
		l.t.Errorf("its sockets are left: %v", err)
	}
	if l.v.vm != nil && !l.v.exited() {
		l.t.Error("its QEMU is left")
	}
	for _, server := range l.v.servers {
		select {
		case <-server.Done():
		default:
			l.t.Error("a virtiofsd is left")
		}
	}
}

func TestSandboxIsStartedAndStopped(t *testing.T) {
	shared := t.TempDir()
	l := started(t, func(c *machine.Config) {
		c.Shares = []virtiofs.Share{{Source: shared, Target: "/srv/x"}}
	})
	l.await(machine.StageSystem)
	st := l.s.State()
	if st.Status != machine.StatusRunning || st.QEMU != l.v.vm.PID() || st.System != "running" || len(st.Shares) != 2 || st.Shares[1].Source != shared {
		t.Errorf("the state is %+v", st)
	}
	var mounted []string
	for _, m := range l.guest.agent.Guest.Configured.Mounts {
		mounted = append(mounted, m.Tag+" "+m.Target)
	}
	if got := strings.Join(mounted, ", "); got != "home /home/agent, share0 /srv/x" {
		t.Errorf("the guest is to mount %s", got)
	}
	if err := l.calls.Stop(t.Context(), api.StopRequest{Grace: time.Minute}); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusStopped, "it was stopped")
	if !l.guest.agent.Guest.PoweredOff || l.guest.wasAsked("quit") != 0 {
		t.Error("the guest was not asked to power off, or was ended by force although it did")
	}
	if l.err != nil || l.again != againNot {
		t.Errorf("the end is an error: %v, %v", l.again, l.err)
	}
}

func TestGuestThatIsNotReadyIsExplained(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*machine.Config)
		begin  func(*fakeGuest)
		guest  bool // it is the guest's fault
		want   []string
	}{
		{
			name:  "QEMU fails",
			begin: func(g *fakeGuest) { g.end(fakeEnd{1, "qemu: -device nonsense: no such device\n"}) },
			want:  []string{"no such device"},
		},
		{
			name:  "its kernel panics",
			begin: func(g *fakeGuest) { g.write("VFS: Unable to mount root fs\n"); g.panic() },
			guest: true, want: []string{"the guest's kernel panicked before it was ready", "Unable to mount root fs"},
		},
		{
			name:  "it powers off",
			begin: func(g *fakeGuest) { g.shutDown("guest-shutdown") },
			guest: true, want: []string{"the guest powered off before it was ready", "is empty"},
		},
		{
			name:   "it says nothing",
			change: func(c *machine.Config) { c.ReadyTimeout = time.Millisecond },
			guest:  true, want: []string{"the guest was not ready after 1ms"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLife(t, tt.change)
			l.v.retried = true // else some of it is tried once more
			l.guest.silent = true
			l.begin()
			if tt.begin != nil {
				// Not before, because a reason that nobody hears of cannot be told.
				l.await(machine.StageQEMU)
				tt.begin(l.guest)
			}
			l.expect(machine.StatusCrashed, "it did not start: ")
			for _, want := range tt.want {
				if l.err == nil || !strings.Contains(l.err.Error(), want) {
					t.Errorf("the error is %v, want %q", l.err, want)
				}
			}
			if errors.Is(l.err, api.ErrGuest) != tt.guest {
				t.Errorf("the guest is at fault: %t, want %t", !tt.guest, tt.guest)
			}
		})
	}
}

func TestQEMUThatEndsAtOnceIsQuoted(t *testing.T) {
	l := newLife(t, nil)
	l.guest.begin = func() { l.guest.end(fakeEnd{1, "qemu: cannot set up guest memory\n"}) }
	l.guest.mute = true
	l.begin()
	l.expect(machine.StatusCrashed, "cannot set up guest memory")
}

// What a busy machine does to the emulator is not the user's affair.
func TestGuestThatPanickedByChanceIsStartedOnceMore(t *testing.T) {
	l := newLife(t, nil)
	l.guest.silent = true
	l.begin()
	l.await(machine.StageQEMU)
	l.guest.panic()
	<-l.ended
	if l.again != againAsBefore || l.err != nil {
		t.Errorf("got %v, %v", l.again, l.err)
	}
}

func TestGuestOfWhichAProcessorStandsStillIsStartedOnceMore(t *testing.T) {
	l := newLife(t, nil)
	l.guest.silent = true
	l.begin()
	l.await(machine.StageQEMU)
	l.guest.write("[   23.1] rcu: rcu_preempt kthread timer wakeup didn't happen for 5253 jiffies! g-1147 f0x0\r\n")
	<-l.ended
	if l.again != againAsBefore || l.err != nil {
		t.Errorf("got %v, %v", l.again, l.err)
	}
}

func TestStopEndsAStart(t *testing.T) {
	l := newLife(t, nil)
	l.guest.silent = true
	l.begin()
	l.await(machine.StageQEMU)
	if err := l.calls.Stop(t.Context(), api.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusStopped, "it was stopped")
	if !errors.Is(l.err, errStopped) { // which is for who waits for the start
		t.Errorf("got %v", l.err)
	}
}

func TestGuestThatDoesNotStopIsEndedByForce(t *testing.T) {
	l := newLife(t, nil)
	l.guest.ignores = true
	l.begin()
	l.await(machine.StageAgent)
	if err := l.calls.Stop(t.Context(), api.StopRequest{Grace: time.Hour}); err != nil {
		t.Fatal(err)
	}
	<-l.guest.ignored
	// A second stop shortens the first.
	if err := l.calls.Stop(t.Context(), api.StopRequest{Grace: time.Millisecond}); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusStopped, "it was stopped")
	if l.guest.wasAsked("quit") != 1 {
		t.Error("it was not ended by force")
	}
}

func TestQEMUThatDoesNotQuitIsKilled(t *testing.T) {
	l := newLife(t, nil)
	l.guest.answer = func(execute string) (string, error, bool) {
		return "", errors.New("not now"), execute == "quit"
	}
	l.begin()
	l.await(machine.StageAgent)
	if err := l.calls.Kill(t.Context(), api.KillRequest{}); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusStopped, "it was killed")
}

func TestEndOfAGuestByItself(t *testing.T) {
	always := func(c *machine.Config) { c.Restart = machine.RestartAlways }
	for _, tt := range []struct {
		name   string
		change func(*machine.Config)
		end    func(*fakeGuest)
		status machine.Status
		reason string
		again  rerun
	}{
		{"it powers off", nil, func(g *fakeGuest) { g.shutDown("guest-shutdown") }, machine.StatusStopped, "the guest powered off", againNot},
		{"its kernel panics", nil, (*fakeGuest).panic, machine.StatusCrashed, "the guest's kernel panicked", againNot},
		{"QEMU fails", nil, func(g *fakeGuest) { g.end(fakeEnd{134, "Assertion failed\n"}) }, machine.StatusCrashed, "Assertion failed", againNot},
		{"it reboots", nil, func(g *fakeGuest) { g.shutDown("guest-reset") }, "", "", againAsNew},
		{"it powers off and is always to run", always, func(g *fakeGuest) { g.shutDown("guest-shutdown") }, "", "", againAsNew},
		{"QEMU fails and it is always to run", always, func(g *fakeGuest) { g.end(fakeEnd{134, "Assertion failed\n"}) }, "", "", againAsNew},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := started(t, tt.change)
			tt.end(l.guest)
			if <-l.ended; l.again != tt.again || l.err != nil {
				t.Errorf("it ended with %v, %v; want %v", l.again, l.err, tt.again)
			}
			if tt.again == againNot {
				l.expect(tt.status, tt.reason)
			}
			// Who watches the guest may learn of its end last, when the next run has written its state already.
			before := l.s.State()
			if err := l.v.setState(func(st *machine.State) { st.Reason = "late" }); err == nil || l.s.State().Reason != before.Reason {
				t.Errorf("what comes after the end changes the state: %v, %+v", err, l.s.State())
			}
		})
	}
}

func TestSandboxThatIsToBeRemovedIsGoneAfterItsEnd(t *testing.T) {
	l := started(t, func(c *machine.Config) { c.Remove = true })
	l.guest.shutDown("guest-shutdown")
	if <-l.ended; l.err != nil {
		t.Error(l.err)
	}
	if _, err := os.Stat(l.s.Files().Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory is left: %v", err)
	}
}

func TestGuestThatLostAShareIsEnded(t *testing.T) {
	l := started(t, nil)
	if err := unix.Kill(l.v.servers[0].PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusCrashed, "the file server of a share died: ")
}

func TestStartThatLostAShareIsExplained(t *testing.T) {
	l := newLife(t, nil)
	l.guest.silent = true
	l.begin()
	l.await(machine.StageQEMU)
	if err := unix.Kill(l.v.servers[0].PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusCrashed, "it did not start: the file server of a share died: ")
}

func TestPausedGuestGoesOnWhenItIsResumed(t *testing.T) {
	l := started(t, nil)
	for range 2 {
		if err := l.calls.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := l.s.State(); st.Status != machine.StatusPaused || !strings.Contains(st.Reason, "sandbox resume a") || l.guest.runs() {
			t.Errorf("the guest runs: %t; the state is %+v", l.guest.runs(), st)
		}
		for what, call := range map[string]func() error{
			"a second pause": func() error { return l.calls.Pause(t.Context()) },
			"a command":      func() error { _, err := l.calls.SSH(t.Context()); return err },
			"its memory":     func() error { _, err := l.calls.Memory(t.Context()); return err },
		} {
			if err := call(); !errors.Is(err, api.ErrNotRunning) {
				t.Errorf("%s of a paused sandbox: %v", what, err)
			}
		}
		if err := l.calls.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st := l.s.State(); st.Status != machine.StatusRunning || st.Reason != "" || !l.guest.runs() {
			t.Errorf("the guest runs: %t; the state is %+v", l.guest.runs(), st)
		}
	}
	if l.guest.agent.Guest.Resumed == nil || len(l.guest.agent.Guest.Resumed.Entropy) == 0 {
		t.Error("the guest got no fresh entropy")
	}
	if err := l.calls.Resume(t.Context()); err == nil || !strings.Contains(err.Error(), "is not paused") {
		t.Errorf("a sandbox that runs is resumed: %v", err)
	}
}

// Nobody else tells the guest that the network at the other end of its connections has died.
func TestGuestWhoseNetworkDiedEndsItsConnections(t *testing.T) {
	l := started(t, nil)
	told := func(want bool) {
		t.Helper()
		if got := l.guest.agent.Guest.Resumed; got == nil || got.Disconnected != want {
			t.Errorf("it is told %+v", got)
		}
	}
	again := func(meanwhile func()) {
		t.Helper()
		if err := l.calls.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		meanwhile()
		if err := l.calls.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.v.disconnect(t.Context())
	told(true)
	again(func() {})
	told(false)
	again(func() { l.v.disconnect(t.Context()) })
	told(true)
}

func TestPausedGuestIsStoppedInOrder(t *testing.T) {
	l := started(t, nil)
	if err := l.calls.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.calls.Stop(t.Context(), api.StopRequest{Grace: time.Minute}); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusStopped, "it was stopped")
	if !l.guest.agent.Guest.PoweredOff {
		t.Error("the guest was not asked to power off")
	}
}

// snapshots lists the directories of snapshots, finished or not.
func (l *life) snapshots() (names []string) {
	l.t.Helper()
	entries, err := os.ReadDir(l.s.Files().Snapshots())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSnapshotIsSavedWhileTheGuestStandsStill(t *testing.T) {
	l := newLife(t, nil)
	var ran, moved bool
	l.guest.answer = func(execute string) (string, error, bool) {
		if execute == "migrate" {
			ran, moved = l.guest.runs(), true
		}
		return "", nil, false
	}
	l.begin()
	l.await(machine.StageAgent)
	snap, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one", WithHome: true})
	if err != nil {
		t.Fatal(err)
	}
	if snap.Tag != "one" || snap.Memory == nil || snap.Home == nil || snap.Pause <= 0 {
		t.Errorf("the snapshot is %+v", snap)
	}
	if !moved || ran || !l.guest.runs() || !l.guest.agent.Guest.Synced {
		t.Errorf("saved: %t, while the guest ran: %t; it runs now: %t; what it held of files was written back: %t", moved, ran, l.guest.runs(), l.guest.agent.Guest.Synced)
	}
	if got, err := l.s.Snapshot("one"); err != nil || got.Tag != "one" {
		t.Errorf("on the disk is %+v, %v", got, err)
	}
	if st := l.s.State(); st.Status != machine.StatusRunning {
		t.Errorf("the state is %+v", st)
	}
	if _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one"}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second one of that tag: %v", err)
	}
}

func TestSnapshotIsRestored(t *testing.T) {
	l := started(t, nil)
	home := filepath.Join(l.s.Files().Home(), "file")
	writeFile(t, home, "then")
	if _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one", WithHome: true}); err != nil {
		t.Fatal(err)
	}
	writeFile(t, home, "later")
	if err := l.calls.Kill(t.Context(), api.KillRequest{Restoring: true}); err != nil {
		t.Fatal(err)
	}
	l.expect(machine.StatusStopped, "a snapshot was restored")

	for _, fails := range []bool{true, false} {
		restored := lifeOf(t, l.v.host, l.s, api.StartRequest{Name: l.s.Name, Restore: l.s.Files().Snapshot("one"), WithHome: true})
		restored.guest.answer = func(execute string) (string, error, bool) {
			return "", errors.New("no such state"), fails && execute == "migrate-incoming"
		}
		restored.begin()
		want := "later"
		if fails {
			restored.expect(machine.StatusCrashed, "no such state")
		} else {
			restored.await(machine.StageAgent)
			if told := restored.guest.agent.Guest; told.Configured != nil || told.Resumed == nil || !told.Resumed.Restored {
				t.Errorf("the guest was told to boot, %+v, or not that it was restored, %+v", told.Configured, told.Resumed)
			}
			want = "then"
		}
		if got, err := os.ReadFile(home); err != nil || string(got) != want {
			t.Errorf("the restore fails: %t; the home has %q, %v; want %q", fails, got, err, want)
		}
	}
}

func TestSnapshotOfAPausedGuestLeavesItPaused(t *testing.T) {
	l := started(t, nil)
	if err := l.calls.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one"}); err != nil {
		t.Fatal(err)
	}
	if st := l.s.State(); st.Status != machine.StatusPaused || l.guest.runs() {
		t.Errorf("the guest runs: %t; the state is %+v", l.guest.runs(), st)
	}
}

func TestSnapshotThatFailsLeavesARunningGuestAndNothingElse(t *testing.T) {
	l := newLife(t, nil)
	var fails atomic.Bool
	fails.Store(true)
	l.guest.answer = func(execute string) (string, error, bool) {
		switch {
		case !fails.Load():
		case execute == "migrate":
			l.guest.say(`{"event": "MIGRATION", "data": {"status": "failed"}, "timestamp": {"seconds": 1, "microseconds": 0}}`)
			return "{}", nil, true
		case execute == "query-migrate" && !l.guest.runs():
			return `{"status": "failed", "error-desc": "No space left on device"}`, nil, true
		}
		return "", nil, false
	}
	l.begin()
	l.await(machine.StageAgent)
	if _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one"}); err == nil || !strings.Contains(err.Error(), "No space left on device") {
		t.Errorf("got %v", err)
	}
	if st := l.s.State(); st.Status != machine.StatusRunning || !l.guest.runs() {
		t.Errorf("the guest runs: %t; the state is %+v", l.guest.runs(), st)
	}
	if left := l.snapshots(); left != nil {
		t.Errorf("left are %q", left)
	}
	fails.Store(false)
	if _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one"}); err != nil {
		t.Errorf("another try: %v", err)
	}
}

func TestGuestThatDoesNotGoOnAfterASnapshotIsShownPaused(t *testing.T) {
	l := newLife(t, nil)
	var fails atomic.Bool
	l.guest.answer = func(execute string) (string, error, bool) {
		return "", errors.New("a block device is busy"), fails.Load() && execute == "cont"
	}
	l.begin()
	l.await(machine.StageAgent)
	fails.Store(true)
	if _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one"}); err == nil || !strings.Contains(err.Error(), "a block device is busy") {
		t.Errorf("got %v", err)
	}
	if st := l.s.State(); st.Status != machine.StatusPaused || !strings.Contains(st.Reason, "sandbox resume a tries again") {
		t.Errorf("the state is %+v", st)
	}
	if left := l.snapshots(); left != nil {
		t.Errorf("left are %q", left)
	}
	fails.Store(false)
	if err := l.calls.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if st := l.s.State(); st.Status != machine.StatusRunning || !l.guest.runs() {
		t.Errorf("the guest runs: %t; the state is %+v", l.guest.runs(), st)
	}
}

func TestOnlyOneChangeOfTheGuestAtATime(t *testing.T) {
	l := newLife(t, nil)
	stopping, goOn := make(chan struct{}), make(chan struct{})
	l.guest.answer = func(execute string) (string, error, bool) {
		if execute == "stop" {
			close(stopping)
			<-goOn
		}
		return "", nil, false
	}
	l.begin()
	l.await(machine.StageAgent)
	paused := make(chan error, 1)
	go func() { paused <- l.calls.Pause(t.Context()) }()
	<-stopping
	for what, call := range map[string]func() error{
		"pause":  func() error { return l.calls.Pause(t.Context()) },
		"resume": func() error { return l.calls.Resume(t.Context()) },
		"save":   func() error { _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one"}); return err },
		"resize": func() error { _, err := l.calls.Resize(t.Context(), api.Sizes{MemoryMiB: 256}); return err },
	} {
		if err := call(); !errors.Is(err, api.ErrBusy) {
			t.Errorf("%s while it is being paused: %v", what, err)
		}
	}
	close(goOn)
	if err := <-paused; err != nil {
		t.Error(err)
	}
}

func TestCallsBeforeTheGuestIsReadyAreRefused(t *testing.T) {
	l := newLife(t, nil)
	l.guest.silent = true
	l.begin()
	l.await(machine.StageQEMU)
	for what, call := range map[string]func() error{
		"pause":  func() error { return l.calls.Pause(t.Context()) },
		"resume": func() error { return l.calls.Resume(t.Context()) },
		"save":   func() error { _, err := l.calls.Save(t.Context(), api.SaveRequest{Tag: "one"}); return err },
		"memory": func() error { _, err := l.calls.Memory(t.Context()); return err },
		"ssh":    func() error { _, err := l.calls.SSH(t.Context()); return err },
	} {
		if err := call(); !errors.Is(err, api.ErrNotRunning) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestCallsThatMakeNoSenseAreRefused(t *testing.T) {
	l := started(t, nil)
	for what, call := range map[string]func() error{
		"a negative grace": func() error { return l.calls.Stop(t.Context(), api.StopRequest{Grace: -1}) },
		"a negative size":  func() error { _, err := l.calls.Resize(t.Context(), api.Sizes{MemoryMiB: -1}); return err },
		"a home elsewhere": func() error { return l.calls.CopyHome(t.Context(), api.CopyHomeRequest{Draft: "../b"}) },
	} {
		refused, ok := errors.AsType[*api.Error](call())
		if !ok || refused.Code != api.CodeInvalid {
			t.Errorf("%s: %v", what, refused)
		}
	}
	if st := l.s.State(); st.Status != machine.StatusRunning {
		t.Errorf("the state is %+v", st)
	}
}
