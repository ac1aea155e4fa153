package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"

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
	Alone      string   `json:",omitempty"`
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

	Notify *NotifyError `json:",omitempty"` // which the error is
	Alone  *AloneError  `json:",omitempty"` // which the error is
}

// commonDevices are those that a program may always have.
var commonDevices = []string{"/dev/null", "/dev/zero", "/dev/urandom"}

func (w way) job(p Program, s Spec) (j job, err error) {
	j = job{Path: p.Path, Args: append([]string{p.Path}, p.Args...), Env: p.Env, Credential: w.credential(s.Room), Filter: s.Filter, Alone: s.Alone}
	if p.Self != "" {
		// The launcher is this program, whatever was installed at its path since.
		j.Path, j.Args[0] = selfPath, p.Self
	}
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
	switch {
	case p.Self != "":
		r.Executes = append(slices.Clone(r.Executes), selfPath)
	case p.Path != "":
		if j.Path, err = filepath.EvalSymlinks(p.Path); err != nil {
			return j, fmt.Errorf("looking for the program: %w", err)
		}
	}
	for i, f := range p.Files {
		if f.Link != "" {
			r.Links[f.Link] = fmt.Sprintf("/proc/self/fd/%d", firstFile+i)
		}
	}
	for _, path := range s.Room.Paths {
		// A path with symbolic links is one to the end of them, which is what is mounted.
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			return j, fmt.Errorf("looking for what %s needs: %w", p.name(), err)
		}
		if real != path {
			r.Links[path] = real
		}
		r.Paths = append(r.Paths, real)
	}
	j.Room = r
	return j, nil
}

// fileBatch is how many descriptors a message can carry (SCM_MAX_FD is 253).
const fileBatch = 250

// send tells a launcher what to do, and gives it the files.
func (j job) send(conn *net.UnixConn, files []File) error {
	data, err := json.Marshal(j)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(files, fileBatch) {
		fds := make([]int, len(batch))
		for i, f := range batch {
			fds[i] = int(f.Fd())
		}
		// A space, because descriptors do not travel alone, and in JSON it is nothing.
		if _, _, err := conn.WriteMsgUnix([]byte(" "), unix.UnixRights(fds...), nil); err != nil {
			return err
		}
		runtime.KeepAlive(batch)
	}
	if _, err := conn.Write(data); err != nil {
		return err
	}
	return conn.CloseWrite()
}

// accept reads what send wrote, and puts the files where the program expects them. It returns the connection,
// which has moved out of their way: the files' numbers were its own, too.
func accept(conn int) (j job, control int, err error) {
	var data []byte
	var files []int
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4*fileBatch))
	for {
		n, oobn, _, _, err := unix.Recvmsg(conn, buf, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return j, conn, err
		}
		if n == 0 {
			break
		}
		data = append(data, buf[:n]...)
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return j, conn, err
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return j, conn, err
			}
			files = append(files, fds...)
		}
	}
	if err := json.Unmarshal(data, &j); err != nil {
		return j, conn, err
	}
	// First out of each other's way.
	above := firstFile + max(maxFiles, len(files))
	if control, err = move(conn, above); err != nil {
		return j, conn, err
	}
	for i, fd := range files {
		if files[i], err = move(fd, above); err != nil {
			return j, control, err
		}
	}
	for i, fd := range files {
		if err := unix.Dup3(fd, firstFile+i, 0); err != nil {
			return j, control, err
		}
		unix.Close(fd)
	}
	for fd := firstFile + len(files); fd < above; fd++ {
		unix.Close(fd)
	}
	return j, control, nil
}

// move gives a descriptor a number that is not below above.
func move(fd, above int) (int, error) {
	moved, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, above)
	if err == nil {
		unix.Close(fd)
	}
	return moved, err
}

// receive waits until the launcher has become the program, which closes its end.
func receive(conn *net.UnixConn, launched *process.Process) (Report, []*os.File, error) {
	var report Report
	done := false
	in := &rightsReader{conn: conn}
	for d := json.NewDecoder(in); ; {
		var a answer
		err := d.Decode(&a)
		switch {
		case err != nil && done:
			return report, in.files, nil
		case err != nil: // it ended before it could say why
			<-launched.Done()
			err = errors.Join(errors.New("the launcher failed"), launched.Err())
		case a.Closed:
			err = &closedError{errors.New(a.Error)}
		case a.Notify != nil:
			err = a.Notify
		case a.Alone != nil:
			err = a.Alone
		case a.Error != "":
			err = errors.New(a.Error)
		}
		if err != nil {
			in.close()
			return report, nil, err
		}
		report, done = *a.Report, true
	}
}

// rightsReader reads from a connection, and takes the descriptors that come with it.
type rightsReader struct {
	conn  *net.UnixConn
	files []*os.File
}

func (r *rightsReader) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := r.conn.ReadMsgUnix(b, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	messages, parseErr := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		fds, rightsErr := unix.ParseUnixRights(&m)
		parseErr = errors.Join(parseErr, rightsErr)
		for _, fd := range fds {
			r.files = append(r.files, os.NewFile(uintptr(fd), "seccomp listener"))
		}
	}
	if err == nil {
		err = parseErr
	}
	return n, err
}

func (r *rightsReader) close() {
	for _, f := range r.files {
		f.Close()
	}
}
