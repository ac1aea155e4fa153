package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine/layout"
)

// SuperviseCommand is the argument with which Start runs our own executable
// again, before the sandbox's name, unless Host.Supervisor says otherwise. The
// executable must then call Supervise. The name is for who looks at the list of
// processes.
const SuperviseCommand = "supervise"

// The supervisor's inherited descriptors, in the order of exec.Cmd.ExtraFiles.
const (
	fdLock    = 3 // the sandbox's lock, already held
	fdReport  = 4 // pipe: reports to whoever starts the sandbox
	fdRequest = 5 // pipe: the startRequest
	fdHold    = 6 // pipe, if startRequest.Hold: when its writer is gone, so is the sandbox's purpose
)

// startRequest is what a supervisor is to do.
type startRequest struct {
	Dirs     layout.Dirs `json:"dirs"`
	Name     string      `json:"name"`
	Hold     bool        `json:"hold,omitempty"`     // the sandbox lives only as long as its starter
	Restore  string      `json:"restore,omitempty"`  // the directory of the snapshot to start with
	WithHome bool        `json:"withHome,omitempty"` // the snapshot's home is restored, too
	Again    bool        `json:"again,omitempty"`    // the same start has failed before, as if by chance
}

// pipe returns the end of a pipe from which the request can be read: a few paths,
// for which a pipe has room. The caller closes it.
func (r startRequest) pipe() (*os.File, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	ours, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	_, err = w.Write(text)
	if err := errors.Join(err, w.Close()); err != nil {
		ours.Close()
		return nil, err
	}
	return ours, nil
}

// readRequest reads what Start has written. Whoever started this program
// otherwise has given it no such descriptor, or another file in its place, which
// is left alone.
func readRequest(pipe *os.File) (startRequest, error) {
	var (
		r  startRequest
		st unix.Stat_t
	)
	err := unix.Fstat(int(pipe.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		if err = json.NewDecoder(pipe).Decode(&r); err == nil {
			return r, nil
		}
	}
	return r, errors.Join(errors.New("a supervisor is started by what starts its sandbox, such as sandbox start, and by nobody else"), err)
}

// startSupervisor starts a process that outlives us, with copies of the files.
// hold is nil unless the request says so.
func (s *Sandbox) startSupervisor(r startRequest, lock, reports, hold *os.File) error {
	argv := s.host.Supervisor
	if len(argv) == 0 {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		argv = []string{self, SuperviseCommand, s.Name}
	}
	request, err := r.pipe()
	if err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	defer request.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = "/"
	cmd.Env = supervisorEnv(os.Environ())
	cmd.ExtraFiles = []*os.File{lock, reports, request}
	if hold != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, hold)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting the supervisor: %w", err)
	}
	return cmd.Process.Release()
}

// supervisorEnv is what the supervisor needs of the environment. The rest
// stays out of it, because people keep API keys there.
func supervisorEnv(environ []string) []string {
	var env []string
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		switch name {
		case "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR",
			"XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR":
			env = append(env, kv)
		}
	}
	return env
}

// rerun says whether a sandbox that has ended runs again.
type rerun int

const (
	againNot      rerun = iota
	againAsNew          // it boots, whatever it began with
	againAsBefore       // the same start is made once more
)

// again runs this supervisor's program anew in its place, with the lock that it
// holds: nothing of the run before is left. The sandbox has no process any more.
// It returns only with an error.
func (v *supervisor) again(how rerun, before startRequest) error {
	r := startRequest{Dirs: before.Dirs, Name: before.Name}
	if how == againAsBefore {
		r = before
		r.Again = true
	}
	r.Hold = v.held.Load()
	request, err := r.pipe()
	if err != nil {
		return fmt.Errorf("running the sandbox again: %w", err)
	}
	defer request.Close()
	if err := unix.Dup3(int(request.Fd()), fdRequest, 0); err != nil { // in place of before's
		return fmt.Errorf("running the sandbox again: %w", err)
	}
	files := []int{fdLock, fdReport}
	if r.Hold {
		files = append(files, fdHold)
	}
	for _, fd := range files {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keeping a descriptor for the next run: %w", err)
		}
	}
	return fmt.Errorf("running the sandbox again: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}
