package machine

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// startProgram runs a shell script that says when it is ready.
func startProgram(t *testing.T, script string, files ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	cmd.ExtraFiles = files
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // to end its children too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd
}

const sleeper = "echo; exec sleep 600"

func TestIdentityIsProvedBeforeASignal(t *testing.T) {
	cmd := startProgram(t, sleeper)
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*identity)
		want   error
	}{
		"the same":          {func(*identity) {}, nil},
		"pid reused":        {func(id *identity) { id.StartTime-- }, errStranger},
		"host rebooted":     {func(id *identity) { id.BootID = "a-boot-before" }, errGone},
		"no such process":   {func(id *identity) { id.PID = 1 << 30 }, errGone},
		"somebody else's":   {func(id *identity) { id.PID = os.Getpid() }, errStranger},
		"written by nobody": {func(id *identity) { *id = identity{} }, errGone},
	} {
		t.Run(name, func(t *testing.T) {
			id := id
			tt.change(&id)
			p, err := openProcess(id)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil {
				p.Close()
			}
		})
	}
}

func TestStartTimeOfAProgramWithAnOddName(t *testing.T) {
	fields := "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 98765 0 25 0"
	got, err := startTime([]byte("42 (a) b (c ) " + fields))
	if err != nil || got != 98765 {
		t.Errorf("%d, %v, want 98765", got, err)
	}
	for _, bad := range []string{"", "42 (x)", "42 (x) S 1", "nothing"} {
		if _, err := startTime([]byte(bad)); err == nil {
			t.Errorf("%q has a start time", bad)
		}
	}
	p, err := parseStat([]byte("42 (a) b (c ) " + fields))
	if err != nil || p.Name != "a) b (c " || p.CPUSeconds != 2 || p.RSSBytes != int64(25*os.Getpagesize()) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestWaitForAProcessEndsWithItOrWithTheContext(t *testing.T) {
	cmd := startProgram(t, sleeper)
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := openProcess(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if p.Wait(ctx, time.Minute) {
		t.Error("it has ended, they say")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Wait(context.Background(), time.Minute) {
		t.Error("its end was not seen")
	}
	_ = cmd.Wait()
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Errorf("signalling what has ended: %v", err)
	}
	if _, err := openProcess(id); !errors.Is(err, errGone) {
		t.Errorf("opening what has ended: %v", err)
	}
}

// fakeSupervisor holds the sandbox's lock, as Start makes a supervisor do, and
// has no API.
func fakeSupervisor(t *testing.T, s *Sandbox, script string, change func(*State)) *exec.Cmd {
	t.Helper()
	lock, err := s.lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	cmd := startProgram(t, script, lock)
	id, err := identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	st := State{Status: StatusRunning, API: apiVersion, Supervisor: id.PID, Identity: &id, Started: time.Now()}
	if change != nil {
		change(&st)
	}
	if err := writeJSON(s.path(stateFile), st); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func TestSandboxWhoseSocketIsGoneIsEndedBySignal(t *testing.T) {
	for name, tt := range map[string]struct {
		script string
		end    func(*Sandbox) error
	}{
		"kill":                 {sleeper, func(s *Sandbox) error { return s.Kill(context.Background()) }},
		"stop in order":        {`trap 'exit 0' TERM; (exec 3>&-; echo; exec sleep 600) & wait`, func(s *Sandbox) error { return s.Stop(context.Background(), time.Minute) }},
		"stop without a grace": {`trap '' TERM; echo; exec sleep 600`, func(s *Sandbox) error { return s.Stop(context.Background(), 0) }},
		"remove":               {sleeper, func(s *Sandbox) error { return s.Remove(context.Background(), true) }},
	} {
		t.Run(name, func(t *testing.T) {
			h := testHost(t)
			s := create(t, h, "a")
			fakeSupervisor(t, s, tt.script, nil)
			if err := tt.end(s); err != nil {
				t.Fatal(err)
			}
			if s.held() {
				t.Error("its lock is still held")
			}
			if st := s.State(); name != "remove" && (st.Status != StatusStopped || st.Identity != nil) {
				t.Errorf("it is %s (%s)", st.Status, st.Reason)
			}
			if name == "remove" && s.Exists() {
				t.Error("it is still there")
			}
		})
	}
}

func TestStrangerWithTheSupervisorsPidIsNotSignalled(t *testing.T) {
	s := create(t, testHost(t), "a")
	stranger := startProgram(t, sleeper)
	fakeSupervisor(t, s, sleeper, func(st *State) {
		st.Supervisor, st.Identity.PID = stranger.Process.Pid, stranger.Process.Pid
		st.Identity.StartTime -= 12345
	})
	err := s.Kill(context.Background())
	if err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("error %v, want one that says that the pid is another process's", err)
	}
	if err := stranger.Process.Signal(unix.Signal(0)); err != nil {
		t.Errorf("the stranger: %v", err)
	}
	if !s.held() {
		t.Error("the supervisor was ended all the same")
	}
}

func TestSupervisorOfAnotherVersionCanOnlyBeEnded(t *testing.T) {
	s := create(t, testHost(t), "a")
	fakeSupervisor(t, s, sleeper, func(st *State) { st.API = apiVersion + 1 })
	if _, err := s.Dial(context.Background()); err == nil || !strings.Contains(err.Error(), "sandbox stop a works") {
		t.Errorf("error %v, want the remedy", err)
	}
	if err := s.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if st := s.State(); st.Status != StatusStopped {
		t.Errorf("it is %s (%s)", st.Status, st.Reason)
	}
}

func TestStateFileOfANewerVersionDoesNotKeepFromEnding(t *testing.T) {
	s := create(t, testHost(t), "a")
	fakeSupervisor(t, s, sleeper, nil)
	data, err := os.ReadFile(s.path(stateFile))
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(data), "{", `{"colour": "red",`, 1)
	if err := os.WriteFile(s.path(stateFile), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.held() {
		t.Error("it still runs")
	}
}
