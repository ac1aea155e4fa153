package api

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// The descriptors that a supervisor inherits, in the order of exec.Cmd.ExtraFiles.
const (
	FDLock   = 3 // the sandbox's lock, already held
	FDReport = 4 // pipe: Reports, to whoever starts the sandbox
	FDStart  = 5 // pipe: the StartRequest
	FDHold   = 6 // pipe, if StartRequest.Hold: when its writer is gone, so is the sandbox's purpose

	FDSecrets = 7 // and those after it: files in memory, each of which has the secret that StartRequest.Secrets names
)

// StartRequest is what a supervisor is to do.
type StartRequest struct {
	Dirs     layout.Dirs       `json:"dirs"`
	Name     string            `json:"name"`
	Hold     bool              `json:"hold,omitempty"`     // the sandbox lives only as long as its starter
	Restore  string            `json:"restore,omitempty"`  // the directory of the snapshot to start with
	WithHome bool              `json:"withHome,omitempty"` // the snapshot's home is restored, too
	Upstream upstream.Settings `json:"upstream,omitzero"`  // the proxies of the environment, with passwords
	Secrets  []string          `json:"secrets,omitempty"`  // their names; see FDSecrets
	SSHAgent string            `json:"sshAgent,omitempty"` // the socket of the user's ssh agent; empty: there is none
	GPGAgent string            `json:"gpgAgent,omitempty"` // the extra socket of the user's gpg-agent; empty: there is none
	Again    bool              `json:"again,omitempty"`    // the same start has failed before, as if by chance
}

// Pipe returns the end of a pipe from which the request can be read: a few paths
// and proxies, for which a pipe has room. The caller closes it.
func (r StartRequest) Pipe() (*os.File, error) {
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

// ReadStart reads what a starter has written. Whoever started this program otherwise
// has given it no such descriptor, or another file in its place, which is left alone.
func ReadStart(pipe *os.File) (StartRequest, error) {
	var (
		r  StartRequest
		st unix.Stat_t
	)
	err := unix.Fstat(int(pipe.Fd()), &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFIFO {
		if err = json.NewDecoder(pipe).Decode(&r); err == nil {
			return r, nil
		}
	}
	return r, errors.Join(errors.New("a supervisor is started by what starts its sandbox, and by nobody else"), err)
}

// Report is what a supervisor says while it starts: a stage that was reached, what the
// user should know, or, last of all, why the start failed.
type Report struct {
	Stage string `json:"stage,omitempty"`
	Note  string `json:"note,omitempty"`
	Error *Error `json:"error,omitempty"`
}

// Failed is the report of a start that failed.
func Failed(err error) Report { return Report{Error: portable(err)} }

// NewReporter returns a function that writes reports as lines of JSON to w, where
// nobody may be reading any more. It may be called by several at once.
func NewReporter(w io.Writer) func(Report) {
	var mu sync.Mutex
	e := json.NewEncoder(w)
	return func(r Report) {
		mu.Lock()
		defer mu.Unlock()
		_ = e.Encode(r)
	}
}
