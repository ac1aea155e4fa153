package machine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
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

// fakeSupervisor holds the sandbox's lock, as Start makes a supervisor do, and
// has no API.
func fakeSupervisor(t *testing.T, s *Sandbox, script string, change func(*State)) *exec.Cmd {
	t.Helper()
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	cmd := startProgram(t, script, lock)
	id, err := process.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	st := State{Status: StatusRunning, API: api.Version, Supervisor: id.PID, Identity: &id, Started: time.Now()}
	if change != nil {
		change(&st)
	}
	if err := durable.WriteJSON(s.Files().Path(layout.StateFile), st); err != nil {
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
	fakeSupervisor(t, s, sleeper, func(st *State) { st.API = api.Version + 1 })
	if _, err := s.Dial(context.Background()); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[stop-other a]") {
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
	data, err := os.ReadFile(s.Files().Path(layout.StateFile))
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(string(data), "{", `{"colour": "red",`, 1)
	if err := os.WriteFile(s.Files().Path(layout.StateFile), []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Kill(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.held() {
		t.Error("it still runs")
	}
}
