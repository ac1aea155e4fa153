package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// patience is for a single wait on a slow machine; nothing is measured by it.
const patience = 4 * time.Minute

// faults is a sandbox of the built program whose processes, sockets and files
// can be watched and damaged.
type faults struct {
	bin    string
	name   string // in the command lines of all its processes
	share  string
	env    []string
	prefix []string // runs a command in the mount namespace of onSmallDisk
	dirs   layout.Dirs
	host   *machine.Host
}

func newFaults(t *testing.T) *faults {
	t.Helper()
	images := guestDirs(t)
	runtime, err := os.MkdirTemp("", "sb") // short: sockets are in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	root := t.TempDir()
	f := &faults{
		bin: buildBinaries(t), share: filepath.Join(root, "share"),
		name: fmt.Sprintf("f%d", time.Now().UnixNano()%1e9),
		dirs: layout.Dirs{
			Data: images.Data, Cache: images.Cache,
			State: filepath.Join(root, "state", "sandbox"), Runtime: filepath.Join(runtime, "sandbox"),
		},
	}
	if err := os.Mkdir(f.share, 0o755); err != nil {
		t.Fatal(err)
	}
	if f.host, err = machine.OpenHost(f.dirs); err != nil {
		t.Fatal(err)
	}
	f.env = append(os.Environ(),
		"XDG_STATE_HOME="+filepath.Dir(f.dirs.State), "XDG_RUNTIME_DIR="+runtime,
		"XDG_DATA_HOME="+filepath.Dir(images.Data), "XDG_CACHE_HOME="+filepath.Dir(images.Cache))
	t.Cleanup(func() { f.removeAll(t) })
	return f
}

func (f *faults) removeAll(t *testing.T) {
	out, _ := f.command(t, "ls", "-q").cmd.Output()
	for name := range strings.FieldsSeq(string(out)) {
		if t.Failed() {
			logs, _ := f.command(t, "logs", "--of", "supervisor", name).cmd.Output()
			t.Logf("supervisor of %s:\n%s", name, logs)
		}
		if out, err := f.command(t, "rm", "--force", name).cmd.CombinedOutput(); err != nil {
			t.Errorf("removing %s: %v\n%s", name, err, out)
		}
	}
	left := f.open(t)
	left.waitGone(t)
	for _, file := range left {
		_ = unix.PidfdSendSignal(int(file.Fd()), unix.SIGKILL, nil, 0)
	}
}

// invocation is a run of the program.
type invocation struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error

	mu  sync.Mutex
	out bytes.Buffer
}

func (c *invocation) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.Write(p)
}

func (c *invocation) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.String()
}

func (f *faults) command(t *testing.T, args ...string) *invocation {
	argv := append(slices.Clone(f.prefix), filepath.Join(f.bin, "sandbox"))
	argv = append(argv, args...)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	c := &invocation{cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), done: make(chan struct{})}
	c.cmd.Env = f.env
	return c
}

func (c *invocation) start(t *testing.T) {
	t.Helper()
	if c.cmd.Stdout == nil {
		c.cmd.Stdout = c
	}
	c.cmd.Stderr = c
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.err = c.cmd.Wait()
		close(c.done)
	}()
}

func (c *invocation) wait() error {
	<-c.done
	return c.err
}

func (c *invocation) kill(t *testing.T) {
	t.Helper()
	if err := c.cmd.Process.Kill(); err != nil {
		t.Fatalf("the command has ended before it was killed: %v\n%s", err, c.text())
	}
	<-c.done
}

func (f *faults) background(t *testing.T, args ...string) *invocation {
	t.Helper()
	c := f.command(t, args...)
	c.start(t)
	return c
}

func (f *faults) ok(t *testing.T, args ...string) string {
	t.Helper()
	c := f.background(t, args...)
	if err := c.wait(); err != nil {
		t.Fatalf("sandbox %s: %v\n%s", strings.Join(args, " "), err, c.text())
	}
	return c.text()
}

// fails expects that the command fails and says so.
func (f *faults) fails(t *testing.T, says string, args ...string) {
	t.Helper()
	c := f.background(t, args...)
	if err := c.wait(); err == nil || !strings.Contains(c.text(), says) {
		t.Fatalf("sandbox %s: %v, want a failure that says %q:\n%s", strings.Join(args, " "), err, says, c.text())
	}
}

func exitStatus(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return 0
}

func (f *faults) sandbox(t *testing.T) *machine.Sandbox {
	t.Helper()
	s, err := f.host.Get(f.name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *faults) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(f.dirs.State, f.name, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// expectStatus asks the program itself, as a user would.
func (f *faults) expectStatus(t *testing.T, want ...machine.Status) {
	t.Helper()
	ls := f.ok(t, "ls")
	st := f.sandbox(t).State()
	if !slices.Contains(want, st.Status) || (st.Status == machine.StatusCrashed && st.Reason == "") {
		t.Errorf("status %s (%s), want %s:\n%s", st.Status, st.Reason, want, ls)
	}
	if !strings.Contains(ls, string(st.Status)) {
		t.Errorf("ls does not show %s:\n%s", st.Status, ls)
	}
}

// waitState returns when the sandbox's state is as wanted.
func (f *faults) waitState(t *testing.T, wanted func(machine.State) bool) {
	t.Helper()
	f.waitFor(t, func() bool {
		s, err := f.host.Get(f.name)
		return err == nil && wanted(s.State())
	})
}

// waitFor looks at each change of a state directory or of the list of them.
func (f *faults) waitFor(t *testing.T, wanted func() bool) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	changes := os.NewFile(uintptr(fd), "inotify")
	defer changes.Close()
	if err := changes.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		dirs, err := filepath.Glob(filepath.Join(f.dirs.State, f.name+"*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, dir := range append(dirs, f.dirs.State) {
			// One that has gone meanwhile is no matter: its parent tells.
			_, _ = unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_CLOSE_WRITE)
		}
		if wanted() {
			return
		}
		if _, err := changes.Read(buf); err != nil {
			t.Fatalf("waiting for another state: %v\n%s", err, f.ok(t, "ls"))
		}
	}
}

// processes lists the processes of our sandboxes by what they are.
func (f *faults) processes(t *testing.T) map[string][]int {
	t.Helper()
	found := make(map[string][]int)
	for _, pid := range allProcesses() {
		argv := procStrings(pid, "cmdline")
		if len(argv) < 2 || !f.ours(argv) {
			continue
		}
		kind := strings.TrimSuffix(filepath.Base(argv[0]), "-system-x86_64")
		if argv[1] == machine.SuperviseCommand {
			kind = "supervisor"
		}
		found[kind] = append(found[kind], pid)
	}
	return found
}

func (f *faults) ours(argv []string) bool {
	switch filepath.Base(argv[0]) {
	case "sandbox":
		return argv[1] == machine.SuperviseCommand && strings.HasPrefix(argv[0], f.bin)
	case "virtiofsd":
		return slices.ContainsFunc(argv, func(arg string) bool {
			return strings.HasPrefix(arg, "--shared-dir="+filepath.Dir(f.share))
		})
	}
	return slices.ContainsFunc(argv, func(arg string) bool { return strings.HasPrefix(arg, "guest="+f.name) })
}

// pidfds are processes that keep their identity when their numbers are reused.
type pidfds map[int]*os.File

// open gets hold of all processes of our sandboxes.
func (f *faults) open(t *testing.T) pidfds {
	t.Helper()
	fds := make(pidfds)
	for _, pids := range f.processes(t) {
		for _, pid := range pids {
			fd, err := unix.PidfdOpen(pid, 0)
			if err != nil {
				continue // it has ended
			}
			fds[pid] = os.NewFile(uintptr(fd), fmt.Sprintf("process %d", pid))
		}
	}
	return fds
}

func (fds pidfds) waitGone(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for pid, file := range fds {
		for {
			poll := []unix.PollFd{{Fd: int32(file.Fd()), Events: unix.POLLIN}}
			n, err := unix.Poll(poll, int(max(0, time.Until(deadline).Milliseconds())))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n == 0 {
				t.Errorf("process %d outlives its sandbox: %v", pid, err)
			}
			break
		}
	}
}

// kill kills the victims of one kind, and waits until all processes are gone.
func (f *faults) kill(t *testing.T, victim string, signal unix.Signal) {
	t.Helper()
	all := f.open(t)
	pids := f.processes(t)[victim]
	if len(pids) == 0 {
		t.Fatalf("there is no %s to kill: %v", victim, f.processes(t))
	}
	if victim == "virtiofsd" {
		pids = pids[:1]
	}
	for _, pid := range pids {
		if err := unix.PidfdSendSignal(int(all[pid].Fd()), signal, nil, 0); err != nil {
			t.Fatalf("killing %s: %v", victim, err)
		}
	}
	all.waitGone(t)
}

// expectNothingLeft looks for processes and sockets. A supervisor that was
// killed leaves files of sockets, which the next start replaces.
func (f *faults) expectNothingLeft(t *testing.T, victim string) {
	t.Helper()
	f.open(t).waitGone(t) // a supervisor gives the lock back just before its end
	if _, err := os.Stat(filepath.Join(f.dirs.Runtime, f.name)); err == nil && victim != "supervisor" {
		t.Errorf("the runtime directory is left")
	}
}

func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

func (f *faults) sameUserNamespace(t *testing.T, pid int) bool {
	t.Helper()
	ours, err := os.Readlink("/proc/self/ns/user")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/user", pid))
	return err == nil && ours == theirs
}

// stranger is a process that is none of our business.
func (f *faults) stranger(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

func alive(pid int) bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(state), ") Z ")
}

// onSmallDisk puts the state directory on a file system of that many MiB, which
// only this test sees.
func (f *faults) onSmallDisk(t *testing.T, size int) {
	t.Helper()
	for _, program := range []string{"unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs a mount namespace: install util-linux (%v)", err)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("needs a mount namespace with a small disk: run it as root")
	}
	ready, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ready.Close()
	holder := exec.Command("unshare", "--mount", "sh", "-ec",
		`mount -t tmpfs -o mode=700,size="$1"m sandbox-test "$2"; echo >&3; exec 3>&-; exec sleep 3600`, "sh", strconv.Itoa(size), f.dirs.State)
	holder.ExtraFiles = []*os.File{w}
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Skipf("no small disk could be mounted (%v): run the tests where root may mount", err)
	}
	f.prefix = []string{"nsenter", "--mount", "--target", strconv.Itoa(holder.Process.Pid), "--"}
	t.Cleanup(func() { f.removeAll(t) }) // before the holder ends
}

func (f *faults) inNamespace(t *testing.T, argv ...string) string {
	t.Helper()
	argv = append(slices.Clone(f.prefix), argv...)
	out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", argv, err, out)
	}
	return string(out)
}

// fillDisk leaves not a byte on the disk, until the returned function is called.
func (f *faults) fillDisk(t *testing.T) (free func()) {
	t.Helper()
	filler := filepath.Join(f.dirs.State, ".filler")
	f.inNamespace(t, "sh", "-c", `cat /dev/zero >"$1" 2>/dev/null; test -s "$1"`, "sh", filler)
	return func() { f.inNamespace(t, "rm", "-f", filler) }
}
