package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent/agenttest"
	"github.com/sourcery-zone/sandbox/agent/server"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

// The programs that a supervisor starts are this test's own binary here, under
// their names. They are started and confined as the real ones are. QEMU hands the
// sockets that it inherits to the test, which is the monitor and the guest.

// fakePrograms puts them where the supervisor finds them.
func fakePrograms(t *testing.T) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "programs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	// For everybody, because QEMU runs as somebody who has nothing.
	name := filepath.Join(dir, "qemu-system-"+string(qemu.HostArch()))
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(name, self, 0o755), os.Link(name, filepath.Join(dir, "virtiofsd"))); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
}

// beFake is the main function of a fake program. It returns in no other process.
func beFake() {
	switch name := filepath.Base(os.Args[0]); {
	case strings.HasPrefix(name, "qemu-system-"):
		fakeExit(beQEMU(os.Args[1:]))
	case name == "virtiofsd":
		fakeExit(beVirtiofsd(os.Args[1:]))
	}
}

// fakeExit is os.Exit without the second that the race detector waits there.
func fakeExit(status int) { syscall.Exit(status) }

// fakeAnswers are those of a QEMU that is asked what it can do.
var fakeAnswers = map[string]string{
	"-version": "QEMU emulator version 10.0.2\n",
	"-accel":   "Accelerators supported in QEMU binary:\ntcg\n",
	"-machine": "Supported machines are:\nq35     a PC\nvirt    a board\n",
	"-help":    "-sandbox on\n",
	"-L":       "",
	"-device": `name "virtio-rng-pci"
name "virtio-blk-pci"
name "vhost-user-fs-pci"
name "virtio-net-pci"
name "vhost-vsock-pci"
name "virtio-serial-pci"
name "virtio-balloon-pci"
name "pvpanic-pci"
name "pcie-root-port"
`,
}

// controlWord names the descriptor, on the kernel's command line, by which the
// test tells a QEMU when and how to end.
const controlWord = "fake.control="

// fakeInherited finds the sockets of the monitor, the agent and the console.
var fakeInherited = regexp.MustCompile(`socket,id=(qmp0|agent0|console0),fd=(\d+)`)

func beQEMU(args []string) int {
	if answer, ok := fakeAnswers[args[0]]; ok {
		fmt.Print(answer)
		return 0
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, unix.SIGTERM)
	line := strings.Join(args, " ")
	_, word, _ := strings.Cut(line, controlWord)
	word, _, _ = strings.Cut(word, " ")
	control, _ := strconv.Atoi(word)
	var names []string
	var fds []int
	for _, socket := range fakeInherited.FindAllStringSubmatch(line, -1) {
		fd, _ := strconv.Atoi(socket[2])
		names, fds = append(names, socket[1]), append(fds, fd)
	}
	if err := unix.Sendmsg(control, []byte(strings.Join(names, " ")), unix.UnixRights(fds...), nil, 0); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, fd := range fds {
		unix.Close(fd) // what the test has is the only one
	}
	go func() {
		<-terminated
		fakeExit(0)
	}()
	var end fakeEnd
	if err := json.NewDecoder(os.NewFile(uintptr(control), "control")).Decode(&end); err != nil {
		return 0 // the test is over
	}
	fmt.Fprint(os.Stderr, end.Words)
	return end.Status
}

// fakeEnd is how a QEMU is to end.
type fakeEnd struct {
	Status int
	Words  string // the last ones
}

func beVirtiofsd(args []string) int {
	if slices.Contains(args, "--version") {
		fmt.Println("virtiofsd 1.13.2")
		return 0
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, unix.SIGTERM) // the first process of a namespace is deaf to signals that it does not handle
	go func() {
		<-stop
		fakeExit(1)
	}()
	value := func(flag string) string {
		for _, arg := range args {
			if value, ok := strings.CutPrefix(arg, flag); ok {
				return value
			}
		}
		return ""
	}
	if value("--sandbox=") != "none" {
		if err := errors.Join(unix.Chroot(value("--shared-dir=")), os.Chdir("/")); err != nil {
			fmt.Fprintln(os.Stderr, "Error entering sandbox:", err)
			return 1
		}
	}
	fmt.Fprintln(os.Stderr, "[INFO virtiofsd] Waiting for vhost-user socket connection...")
	fd, _ := strconv.Atoi(value("--fd="))
	l, err := net.FileListener(os.NewFile(uintptr(fd), "socket"))
	if err != nil {
		return 1
	}
	conn, err := l.Accept()
	if err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, conn) // until QEMU ends
	return 0
}

// fakeGuest is a machine as its supervisor sees it: the answers of its monitor,
// and an agent on this machine. What it does otherwise than a good one is set
// before it starts.
type fakeGuest struct {
	t     *testing.T
	agent *agenttest.Server

	silent  bool                                                      // no agent answers
	mute    bool                                                      // nor does the monitor
	begin   func()                                                    // called when QEMU runs; may be nil
	answer  func(execute string) (result string, err error, own bool) // of the monitor, if it is not as usual; may be nil
	ignores bool                                                      // requests to power down
	ignored chan struct{}                                             // one that is told, and ignores it, says so

	mu      sync.Mutex
	control *net.UnixConn
	monitor net.Conn
	console net.Conn
	asked   []string // of the monitor
	running bool     // its processors
}

// newFakeGuest returns the guest of a sandbox.
func newFakeGuest(t *testing.T, files layout.Sandbox) *fakeGuest {
	t.Helper()
	key, err := layout.ReadKey(files.Key(layout.ClientKey))
	if err != nil {
		t.Fatal(err)
	}
	g := &fakeGuest{t: t, agent: agenttest.NewServer(t), running: true, ignored: make(chan struct{}, 1)}
	g.agent.Guest.State.System = "running"
	g.agent.Config.Admit = server.AdmitKeys("", key.PublicKey())
	g.agent.Config.Controller = powerSwitch{g.agent.Guest, g}
	return g
}

// powerSwitch lets a guest that is told to power off do so.
type powerSwitch struct {
	*agenttest.Guest
	machine *fakeGuest
}

func (p powerSwitch) PowerOff(ctx context.Context) error {
	if !p.machine.runs() { // who stands still hears nothing
		<-ctx.Done()
		return ctx.Err()
	}
	err := p.Guest.PowerOff(ctx)
	if p.machine.ignores {
		p.machine.ignored <- struct{}{}
	} else {
		p.machine.shutDown("guest-shutdown")
	}
	return err
}

// launch starts the fake program as a QEMU is started, and takes over its part.
func (g *fakeGuest) launch(l *qemu.Launcher, c qemu.Config, o qemu.StartOptions) (*qemu.Process, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	control := fakeConn(g.t, fds[0])
	c.Cmdline = append(slices.Clone(c.Cmdline), fmt.Sprint(controlWord, o.Files.Add(os.NewFile(uintptr(fds[1]), "control"))))
	p, err := l.Start(c, o)
	if err != nil {
		return nil, err
	}
	text, rights := make([]byte, 1024), make([]byte, 1024)
	n, size, _, _, err := control.ReadMsgUnix(text, rights)
	if err != nil {
		return nil, fmt.Errorf("the fake QEMU said nothing: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(rights[:size])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("the fake QEMU handed nothing over: %w", err)
	}
	inherited, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	conns := map[string]net.Conn{}
	for i, name := range strings.Fields(string(text[:n])) {
		conns[name] = fakeConn(g.t, inherited[i])
	}
	go func() { // as the kernel does
		<-p.Done()
		for _, conn := range conns {
			conn.Close()
		}
	}()
	g.mu.Lock()
	g.control, g.monitor, g.console = control, conns["qmp0"], conns["console0"]
	g.mu.Unlock()
	if !g.silent {
		g.agent.ServePort(g.t, conns["agent0"])
	}
	if g.begin != nil {
		g.begin()
	}
	if g.mute {
		return p, nil
	}
	qmptest.Play(g.t, conns["qmp0"], func(m *qmptest.Monitor) {
		m.Say(qmptest.Greeting)
		m.Serve(func(c qmptest.Command) (string, error) { return g.obey(c.Execute) })
	})
	return p, nil
}

// fakeConn returns a connection that lasts as long as the test.
func fakeConn(t *testing.T, fd int) *net.UnixConn {
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close() // net.FileConn duplicates it
	conn, err := net.FileConn(file)
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { conn.Close() })
	return conn.(*net.UnixConn)
}

// obey answers a command of the monitor.
func (g *fakeGuest) obey(execute string) (result string, err error) {
	g.mu.Lock()
	g.asked = append(g.asked, execute)
	g.mu.Unlock()
	if g.answer != nil {
		if result, err, own := g.answer(execute); own {
			return result, err
		}
	}
	switch execute {
	case "stop":
		g.run(false)
	case "cont":
		g.run(true)
	case "query-status":
		state := map[bool]string{true: "running", false: "paused"}[g.runs()]
		return fmt.Sprintf(`{"status": %q, "running": %t}`, state, g.runs()), nil
	case "add-fd":
		return `{"fdset-id": 1, "fd": 20}`, nil
	case "migrate", "migrate-incoming":
		g.say(`{"event": "MIGRATION", "data": {"status": "completed"}, "timestamp": {"seconds": 1, "microseconds": 0}}`)
	case "query-balloon":
		return `{"actual": 536870912}`, nil
	case "quit":
		g.shutDown("host-qmp-quit")
	}
	return `{}`, nil
}

func (g *fakeGuest) run(running bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.running = running
}

func (g *fakeGuest) runs() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.running
}

// wasAsked tells how often the monitor was asked to do something.
func (g *fakeGuest) wasAsked(execute string) (times int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, asked := range g.asked {
		if asked == execute {
			times++
		}
	}
	return times
}

// say lets the monitor tell of something.
func (g *fakeGuest) say(event string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = io.WriteString(g.monitor, event+"\r\n") // the supervisor may have gone
}

// write lets the guest write to its console.
func (g *fakeGuest) write(text string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_, _ = io.WriteString(g.console, text)
}

// shutDown ends the machine for a reason of QEMU's.
func (g *fakeGuest) shutDown(reason string) {
	g.say(fmt.Sprintf(`{"event": "SHUTDOWN", "data": {"guest": true, "reason": %q}, "timestamp": {"seconds": 1, "microseconds": 0}}`, reason))
	g.end(fakeEnd{})
}

// panic ends the machine as a kernel does that panics.
func (g *fakeGuest) panic() {
	g.say(`{"event": "GUEST_PANICKED", "data": {"action": "run"}, "timestamp": {"seconds": 1, "microseconds": 0}}`)
	g.shutDown("guest-reset")
}

// end ends QEMU.
func (g *fakeGuest) end(how fakeEnd) {
	g.mu.Lock()
	defer g.mu.Unlock()
	_ = json.NewEncoder(g.control).Encode(how) // it may have ended
}
