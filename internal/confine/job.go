package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/process"
)

// job is what the launcher is told to do.
type job struct {
	Path       string
	Args       []string // with the program's name
	Env        []string
	Files      []jobFile
	Room       *jobRoom `json:",omitempty"`
	Credential *User    `json:",omitempty"`
	Filter     *Filter  `json:",omitempty"`
}

type jobFile struct {
	Path   string `json:",omitempty"`
	Reopen Access `json:",omitempty"`
}

// jobRoom is a Room whose paths are resolved.
type jobRoom struct {
	Namespaces bool
	UserSpace  bool  // the namespaces include one of users
	User       *User // whom the program runs as, if that is another than ours
	Paths      []string
	Executes   []string
	Devices    []string
	Links      map[string]string
	Network    bool
}

// answer is what the launcher says: what it could do, or why it could not go on. Then it becomes the program.
type answer struct {
	Report *Report `json:",omitempty"`
	Error  string  `json:",omitempty"`
	Closed bool    `json:",omitempty"` // the error is a closedError
}

// inherited are the devices that a program may always have.
var commonDevices = []string{"/dev/null", "/dev/zero", "/dev/urandom"}

func (w way) job(p Program, s Spec) (j job, err error) {
	j = job{Path: p.Path, Args: append([]string{p.Path}, p.Args...), Env: p.Env, Credential: w.credential(s.Room), Filter: s.Filter}
	for _, f := range p.Files {
		j.Files = append(j.Files, jobFile{f.Path, f.Reopen})
	}
	if s.Room == nil {
		return j, nil
	}
	r := &jobRoom{
		Namespaces: w.namespaces, UserSpace: w.userspace, User: s.Room.User, Links: map[string]string{}, Network: s.Room.Network,
		Devices: append(append([]string{}, commonDevices...), s.Room.Devices...), Executes: s.Room.Executes,
	}
	if p.Path != "" {
		if j.Path, err = filepath.EvalSymlinks(p.Path); err != nil {
			return j, fmt.Errorf("looking for the program: %w", err)
		}
	}
	for path, target := range s.Room.Links {
		r.Links[path] = target
	}
	for _, path := range s.Room.Paths {
		// A path with symbolic links is one to the end of them, which is what is mounted.
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return j, fmt.Errorf("looking for what %s needs: %w", filepath.Base(p.Path), err)
		}
		if real != path {
			r.Links[path] = real
		}
		r.Paths = append(r.Paths, real)
	}
	j.Room = r
	return j, nil
}

// send returns the two ends of a connection to the launcher, in which the job already is.
func (j job) send() (ours, theirs *os.File, err error) {
	data, err := json.Marshal(j)
	if err != nil {
		return nil, nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("connecting to the launcher: %w", err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "launcher"), os.NewFile(uintptr(fds[1]), "launcher")
	// A job is a tenth of what a socket holds, so nobody needs to read yet.
	if err := errors.Join(unix.SetNonblock(fds[0], true), writeAll(fds[0], data), unix.Shutdown(fds[0], unix.SHUT_WR)); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("telling the launcher what to do: %w", err), ours.Close(), theirs.Close())
	}
	return ours, theirs, nil
}

func writeAll(fd int, data []byte) error {
	n, err := unix.Write(fd, data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	return err
}

// receive waits until the launcher has become the program, which closes its end.
func receive(ours *os.File, launched *process.Process) (Report, error) {
	conn, err := net.FileConn(ours)
	if err != nil {
		return Report{}, err
	}
	defer conn.Close()
	var report Report
	done := false
	for d := json.NewDecoder(conn); ; {
		var a answer
		err := d.Decode(&a)
		switch {
		case err != nil && done:
			return report, nil
		case err != nil: // it ended before it could say why
			<-launched.Done()
			return report, errors.Join(errors.New("the launcher failed"), launched.Err())
		case a.Closed:
			return report, &closedError{errors.New(a.Error)}
		case a.Error != "":
			return report, errors.New(a.Error)
		}
		report, done = *a.Report, true
	}
}

// launcherName marks a process as a launcher: its argv[0], which nobody types.
const launcherName = "sandbox: launcher"

// launcherArgs tell the launcher, besides what it is, how many files the program inherits: its own connection is
// the one after these.
func launcherArgs(files int) []string { return []string{launcherName, strconv.Itoa(files)} }

// launcherEnv makes the launcher quick: it needs one thread and ends before there is garbage.
func launcherEnv() []string { return []string{"GOMAXPROCS=1", "GOGC=off"} }

// self is a path by which this program can be executed.
type self struct {
	path string
	copy *os.File // if that is one
}

func (s self) close() {
	if s.copy != nil {
		s.copy.Close()
	}
}

// findLauncher returns this program as it was started, whatever was installed at its path since. The user of a
// Room executes it, for whom it is copied if its mode is against that.
func findLauncher(s Spec) (self, error) {
	const path = "/proc/self/exe"
	if s.Room == nil || s.Room.User == nil {
		return self{path: path}, nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return self{}, fmt.Errorf("looking for the launcher: %w", err)
	}
	if info.Mode().Perm()&0o001 != 0 {
		return self{path: path}, nil
	}
	program, err := os.Open(path)
	if err != nil {
		return self{}, err
	}
	defer program.Close()
	fd, err := unix.MemfdCreate("sandbox", unix.MFD_CLOEXEC)
	if err != nil {
		return self{}, fmt.Errorf("copying the launcher: %w", err)
	}
	file := os.NewFile(uintptr(fd), "sandbox")
	if _, err := io.Copy(file, program); err != nil {
		return self{}, errors.Join(fmt.Errorf("copying the launcher: %w", err), file.Close())
	}
	return self{path: fmt.Sprintf("/proc/self/fd/%d", fd), copy: file}, nil
}
