package confine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/internal/socketpair"
)

// Launcher is a process that becomes a confined program when it is told to. It takes some milliseconds to begin,
// as every program of our size does, which are saved when other work is done meanwhile.
type Launcher struct {
	ctx     context.Context // of the program
	program Program
	spec    Spec
	options process.Options

	begun chan struct{} // closed when the following are set
	first *launched     // by the first of the ways
	err   error
}

// Ready begins a launcher for a program whose arguments and files are not known yet; the rest is as with Start. The
// caller starts the program with it, or closes it.
func Ready(ctx context.Context, p Program, s Spec, o process.Options) *Launcher {
	l := &Launcher{ctx: ctx, program: p, spec: s, options: o, begun: make(chan struct{})}
	go func() {
		defer close(l.begun)
		l.first, l.err = l.launch(s.ways()[0])
	}()
	return l
}

// Start starts the program: see the function Start. It can be called once.
func (l *Launcher) Start(args []string, files []File) (*process.Process, Report, error) {
	p := l.program
	p.Args, p.Files = args, files
	<-l.begun
	next, err := l.first, l.err
	l.first = nil
	var missing []error
	for i, w := range l.spec.ways() {
		if i > 0 {
			next, err = l.launch(w)
		}
		var report Report
		if err == nil {
			report, err = next.run(w, p, l.spec)
		}
		var closed *closedError
		switch {
		case err == nil:
			report.explain(missing)
			return next.process, report, nil
		case !errors.As(err, &closed):
			return nil, Report{}, err
		}
		missing = append(missing, closed.err)
	}
	return nil, Report{}, fmt.Errorf("starting %s: %w", p.name(), errors.Join(missing...))
}

// Close ends a launcher that has started nothing. It may be called on nil, and more than once.
func (l *Launcher) Close() {
	if l == nil {
		return
	}
	<-l.begun
	if l.first != nil {
		l.first.end()
		l.first = nil
	}
}

// launched is a launcher that waits for its job.
type launched struct {
	process *process.Process
	conn    *net.UnixConn
}

func (l *launched) end() {
	l.conn.Close()
	_ = l.process.Stop(context.Background(), 0) // it is killed, or gone
}

// launch begins the way.
func (l *Launcher) launch(w way) (*launched, error) {
	if l.spec.Room != nil {
		if err := w.enough(l.spec.Room, landlockVersion()); err != nil {
			return nil, err
		}
	}
	self, err := findLauncher(l.spec)
	if err != nil {
		return nil, err
	}
	defer self.close()
	ours, theirs, err := socketpair.New(unix.SOCK_STREAM, "launcher")
	if err != nil {
		return nil, fmt.Errorf("connecting to the launcher: %w", err)
	}
	defer theirs.Close() // so that its other end ends with the launcher
	cmd := exec.CommandContext(l.ctx, self.path)
	cmd.Args = []string{launcherName}
	cmd.Env = launcherEnv()
	cmd.Dir, cmd.Stdin, cmd.Stdout = l.program.Dir, l.program.Stdin, l.program.Stdout
	// So that the launcher finds the numbers taken that the program's files are to have: see accept.
	cmd.ExtraFiles = slices.Repeat([]*os.File{theirs}, maxFiles)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.SysProcAttr = w.attr(l.spec)
	o := l.options
	o.Name = l.program.name()
	started, err := process.Start(cmd, o)
	if err != nil && w.namespaces {
		err = refused(w.name, errors.Unwrap(err)) // without what was executed, which is ourselves
	}
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return &launched{started, ours}, nil
}

// run gives the launcher its job and waits until it has become the program.
func (l *launched) run(w way, p Program, s Spec) (r Report, err error) {
	defer func() {
		if err != nil {
			l.end()
		}
	}()
	defer l.conn.Close()
	job, err := w.job(p, s)
	if err != nil {
		return r, err
	}
	if err := job.send(l.conn, p.Files); err != nil {
		<-l.process.Done() // which says more, if it has ended
		return r, errors.Join(fmt.Errorf("telling the launcher what to do: %w", err), l.process.Err())
	}
	r, files, err := receive(l.conn, l.process)
	if err == nil && len(files) > 0 {
		s.Listener(files[0])
	}
	return r, err
}

// launcherName marks a process as a launcher: its argv[0], which nobody types.
const launcherName = "sandbox: launcher"

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

// selfPath leads every process to its program, also where no directory has it.
const selfPath = "/proc/self/exe"

// findLauncher returns this program as it was started, whatever was installed at its path since. The user of a
// Room executes it, for whom it is copied if its mode is against that.
func findLauncher(s Spec) (self, error) {
	const path = selfPath
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
