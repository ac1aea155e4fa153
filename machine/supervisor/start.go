package supervisor

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine/api"
)

// inheritSecrets returns the files of the secrets with those names, which no program that we start inherits from us. The
// caller closes them.
func inheritSecrets(names []string) map[string]*os.File {
	files := map[string]*os.File{}
	for i, name := range names {
		unix.CloseOnExec(api.FDSecrets + i)
		files[name] = os.NewFile(uintptr(api.FDSecrets+i), "secret")
	}
	return files
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
func (v *supervisor) again(how rerun, before api.StartRequest) error {
	r := api.StartRequest{Dirs: before.Dirs, Name: before.Name, Upstream: before.Upstream, Secrets: before.Secrets, SSHAgent: before.SSHAgent, GPGAgent: before.GPGAgent}
	if how == againAsBefore {
		r = before
		r.Again = true
	}
	r.Hold = v.held.Load()
	request, err := r.Pipe()
	if err != nil {
		return fmt.Errorf("running the sandbox again: %w", err)
	}
	defer request.Close()
	if err := unix.Dup3(int(request.Fd()), api.FDStart, 0); err != nil { // in place of before's
		return fmt.Errorf("running the sandbox again: %w", err)
	}
	files := []int{api.FDLock, api.FDReport}
	if r.Hold {
		files = append(files, api.FDHold)
	}
	for i := range r.Secrets {
		files = append(files, api.FDSecrets+i)
	}
	for _, fd := range files {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("keeping a descriptor for the next run: %w", err)
		}
	}
	return fmt.Errorf("running the sandbox again: %w", unix.Exec("/proc/self/exe", os.Args, os.Environ()))
}
