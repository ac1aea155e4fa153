package virtiofs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// The tests in this file run the real virtiofsd, some of them from a second process: this test binary, started
// again with helperConfig in its environment.
const helperConfig = "VIRTIOFS_TEST_HELPER"

// helperOrder is what the helper is to do.
type helperOrder struct {
	Daemon       Daemon
	Source       string // of Config, which travels without it
	File         bool   // that is a file
	Config       ServerConfig
	NoNamespaces bool // forbid user namespaces first
	UID          int  // become this user then, unless 0
	Judged       bool // by testJudge
}

// helperReport is what it says about the server that it has started.
type helperReport struct {
	PID       int
	Isolation string
	Error     string
}

func TestMain(m *testing.M) {
	confine.Main()
	if task := os.Getenv(fakeTask); task != "" {
		os.Exit(beFake(task, os.Args))
	}
	if order := os.Getenv(helperConfig); order != "" {
		if err := help(order); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// help starts a server, reports, and stops it when its standard input ends.
func help(text string) error {
	var order helperOrder
	if err := json.Unmarshal([]byte(text), &order); err != nil {
		return err
	}
	if order.NoNamespaces {
		// It counts for the user namespace that this process is in, which the test has made for it.
		if err := os.WriteFile("/proc/sys/user/max_user_namespaces", []byte("0"), 0o644); err != nil {
			return err
		}
	}
	if order.UID != 0 {
		if err := errors.Join(syscall.Setgroups(nil), syscall.Setgid(order.UID), syscall.Setuid(order.UID)); err != nil {
			return err
		}
	}
	ctx := context.Background()
	open := hostdir.Open
	if order.File {
		open = hostdir.OpenFile
	}
	dir, err := open(order.Source)
	if err != nil {
		return err
	}
	defer dir.Close()
	order.Config.Directory, order.Config.Log = dir, os.Stderr
	if order.Judged {
		order.Config.Judge = testJudge{}
	}
	var report helperReport
	server, err := order.Daemon.Start(ctx, order.Config)
	if err != nil {
		report.Error = err.Error()
	} else {
		report.PID, report.Isolation = server.PID(), server.Isolation()
	}
	if err := json.NewEncoder(os.Stdout).Encode(report); err != nil || server == nil {
		return err
	}
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return server.Stop(ctx)
}

// nobody is an ordinary user for tests that run as root.
const nobody = 65534

func realDaemon(t *testing.T) Daemon {
	t.Helper()
	d, err := Find(t.Context())
	if err != nil {
		t.Skipf("make test installs what this test needs: %v", err)
	}
	return d
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can become other users: run the tests as root too")
	}
}

// realConfig shares a directory that belongs to uid, who can also make the socket.
func realConfig(t *testing.T, uid int) ServerConfig {
	t.Helper()
	base, err := os.MkdirTemp("", "virtiofs")
	if err == nil {
		base, err = filepath.EvalSymlinks(base)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(base) })
	source := mkdir(t, base, "src")
	c := ServerConfig{
		Directory: openDir(t, source), Socket: filepath.Join(base, "fs.sock"), Log: &buffer{},
		GuestUID: 1000, GuestGID: 1000, HostUID: uid, HostGID: os.Getegid(),
	}
	if uid != os.Geteuid() {
		c.HostGID = uid
		for _, dir := range []string{base, source} {
			if err := os.Chown(dir, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

// helper is the second process.
type helper struct {
	helperReport
	cmd   *exec.Cmd
	stdin io.Closer
}

// encode makes the text for help.
func (o helperOrder) encode(t *testing.T) string {
	t.Helper()
	o.Config.Directory, o.Config.Log = nil, nil
	type config struct {
		ServerConfig
		Judged any // hides a function, which is nil
	}
	text, err := json.Marshal(struct {
		helperOrder
		Config config
	}{o, config{o.Config, nil}})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func startHelper(t *testing.T, order helperOrder, attr *syscall.SysProcAttr) *helper {
	t.Helper()
	order.Source, order.File = order.Config.Directory.Path(), order.Config.Directory.IsFile()
	text := order.encode(t)
	log := &buffer{}
	h := &helper{cmd: exec.Command("/proc/self/exe")} // by this name other users may start it too
	h.cmd.Env = append(os.Environ(), helperConfig+"="+text)
	h.cmd.Stderr = log
	h.cmd.SysProcAttr = attr
	h.cmd.WaitDelay = time.Second
	stdin, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.stdin = stdin
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.cmd.Start(); err != nil {
		t.Fatalf("starting the helper: %v", err)
	}
	t.Cleanup(func() {
		_ = h.cmd.Process.Kill()
		_ = h.cmd.Wait()
		if t.Failed() {
			t.Logf("the helper's log:\n%s", log)
		}
	})
	if err := json.NewDecoder(stdout).Decode(&h.helperReport); err != nil {
		t.Fatalf("the helper has not reported: %v\n%s", err, log)
	}
	return h
}

// inUser makes the helper an ordinary user.
func inUser(uid uint32) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
}

// inNamespace makes the helper root of a user namespace, for which it can forbid further ones.
func inNamespace(ids ...int) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Cloneflags:                 syscall.CLONE_NEWUSER,
		GidMappingsEnableSetgroups: os.Geteuid() == 0,
	}
	for _, id := range ids {
		attr.UidMappings = append(attr.UidMappings, syscall.SysProcIDMap{ContainerID: id, HostID: id, Size: 1})
		attr.GidMappings = append(attr.GidMappings, syscall.SysProcIDMap{ContainerID: id, HostID: id, Size: 1})
	}
	return attr
}

func TestDaemonServesItsCaller(t *testing.T) {
	d, c := realDaemon(t), realConfig(t, os.Geteuid())
	s, err := d.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Log("isolation:", s.Isolation())
	gone := watch(t, descendants(t, s.PID()))
	stop(t, s)
	await(t, gone)
	if err := s.Err(); err != nil {
		t.Error(err)
	}
}

func TestDaemonServesReadOnly(t *testing.T) {
	d, c := realDaemon(t), realConfig(t, os.Geteuid())
	c.ReadOnly = true
	s, err := d.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	stop(t, s)
}

func TestDaemonServesAnOrdinaryUser(t *testing.T) {
	needRoot(t)
	order := helperOrder{Daemon: realDaemon(t), Config: realConfig(t, nobody)}
	h := startHelper(t, order, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}})
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	t.Log("isolation:", h.Isolation)
	checkUser(t, h.PID, nobody)
}

func TestDaemonOfRootServesAsTheHostUser(t *testing.T) {
	needRoot(t)
	s, err := realDaemon(t).Start(t.Context(), realConfig(t, nobody))
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	t.Log("isolation:", s.Isolation())
	checkUser(t, s.PID(), nobody)
}

func TestDaemonOfRootCannotServeWhatTheHostUserCannotRead(t *testing.T) {
	needRoot(t)
	d, c := realDaemon(t), realConfig(t, nobody)
	source := c.Directory.Path()
	if err := errors.Join(os.Chown(source, 0, 0), os.Chmod(source, 0o700)); err != nil {
		t.Fatal(err)
	}
	s, err := d.Start(t.Context(), c)
	if err == nil {
		stop(t, s)
		t.Fatalf("served, isolation: %s", s.Isolation())
	}
	if !strings.Contains(err.Error(), source) {
		t.Errorf("%v does not name the directory", err)
	}
}

func TestDaemonFallsBackWhereUserNamespacesAreForbidden(t *testing.T) {
	needRoot(t)
	for _, test := range []struct {
		name       string
		uid        int
		isolations []string // those that can be expected: containers differ in what else they forbid
	}{
		{"root", 0, []string{"namespace without capabilities", "chroot without capabilities"}},
		{"user", nobody, []string{"none"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			order := helperOrder{Daemon: realDaemon(t), Config: realConfig(t, test.uid), NoNamespaces: true, UID: test.uid}
			order.Config.AllowUnconfined = true
			h := startHelper(t, order, inNamespace(0, nobody))
			if !slices.Contains(test.isolations, h.Isolation) {
				t.Fatalf("isolation %q, %s; want one of %q", h.Isolation, h.Error, test.isolations)
			}
			checkUser(t, h.PID, test.uid)
			checkDiesWithParent(t, h)
		})
	}
}

func TestDaemonDiesWithItsParent(t *testing.T) {
	h := startHelper(t, helperOrder{Daemon: realDaemon(t), Config: realConfig(t, os.Geteuid())}, nil)
	if h.Error != "" {
		t.Fatal(h.Error)
	}
	checkDiesWithParent(t, h)
}

// checkDiesWithParent kills the helper, which then can do nothing for the end of its children.
func checkDiesWithParent(t *testing.T, h *helper) {
	t.Helper()
	gone := watch(t, descendants(t, h.PID))
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await(t, gone)
}

// checkUser fails if a process of the server has another user than uid on the host.
func checkUser(t *testing.T, pid, uid int) {
	t.Helper()
	for _, pid := range descendants(t, pid) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("\nUid:\t%[1]d\t%[1]d\t%[1]d\t%[1]d\n", uid)
		if !strings.Contains(string(status), want) {
			t.Errorf("process %d does not run as user %d:\n%s", pid, uid, status)
		}
	}
}

// descendants returns pid and all processes below it.
func descendants(t testing.TB, pid int) []int {
	t.Helper()
	all := []int{pid}
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil || len(tasks) == 0 {
		t.Fatalf("process %d has no list of children: %v", pid, err)
	}
	for _, name := range tasks {
		children, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, child := range strings.Fields(string(children)) {
			n, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, descendants(t, n)...)
		}
	}
	return all
}

// watch returns a channel that is closed when all the processes, which must live now, have ended.
func watch(t *testing.T, pids []int) <-chan struct{} {
	t.Helper()
	var polls []unix.PollFd
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatalf("watching process %d: %v", pid, err)
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
		polls = append(polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	done := make(chan struct{})
	go func() {
		for _, poll := range polls {
			for {
				n, err := unix.Poll([]unix.PollFd{poll}, -1)
				if n == 1 {
					break
				}
				if !errors.Is(err, unix.EINTR) {
					return
				}
			}
		}
		close(done)
	}()
	return done
}

// Whoever may rename what is above a share has all the time between our look at the directory and virtiofsd's.
func TestDaemonDoesNotServeWhatTakesTheDirectorysPlace(t *testing.T) {
	daemon := realDaemon(t)
	for _, swap := range []string{
		`mv "$dir" "$dir.kept"; ln -s /etc "$dir"`,
		`mv "$dir" "$dir.kept"; mkdir "$dir"`,
	} {
		c := realConfig(t, os.Geteuid())
		d := fake(t, fmt.Sprintf(`dir='%s'; %s; exec '%s' "$@"`, c.Directory.Path(), swap, daemon.Path))
		s, err := d.Start(t.Context(), c)
		if err == nil {
			stop(t, s)
			t.Errorf("%s: served, isolation: %s", swap, s.Isolation())
			continue
		}
		if _, ok := errors.AsType[*ChangedError](err); !ok {
			t.Errorf("%s: %v", swap, err)
		}
		if _, err := os.Stat(c.Socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the socket is left behind: %v", swap, err)
		}
	}
}
