package supervisor

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/stack"
)

// notification is one as a desktop gets it.
type notification struct{ app, summary, body string }

// desktop shows notifications on the bus of a session.
type desktop struct{ shown chan notification }

func (d *desktop) Notify(app string, _ uint32, _, summary, body string, _ []string, _ map[string]dbus.Variant, _ int32) (uint32, *dbus.Error) {
	d.shown <- notification{app, summary, body}
	return 1, nil
}

// session starts a bus with a desktop on it, and returns the session's runtime directory.
func session(t *testing.T) (runtimeDir string, shown <-chan notification) {
	t.Helper()
	program, err := exec.LookPath("dbus-daemon")
	if err != nil {
		t.Skip("it needs a bus: apt-get install dbus-daemon")
	}
	dir := t.TempDir()
	address := "unix:path=" + filepath.Join(dir, "bus")
	daemon := exec.Command(program, "--session", "--nofork", "--nopidfile", "--print-address", "--address="+address)
	out, err := daemon.StdoutPipe()
	if err == nil {
		err = daemon.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	})
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil { // it is there
		t.Fatal(err)
	}
	bus, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bus.Close() })
	d := &desktop{make(chan notification, 100)}
	if err := bus.Export(d, "/org/freedesktop/Notifications", "org.freedesktop.Notifications"); err != nil {
		t.Fatal(err)
	}
	if reply, err := bus.RequestName("org.freedesktop.Notifications", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("%v, %v", reply, err)
	}
	return dir, d.shown
}

func TestDesktopIsToldWhatAGuestWaitsFor(t *testing.T) {
	dir, shown := session(t)
	t.Setenv("XDG_RUNTIME_DIR", dir)
	v := create(t)
	v.config, v.askCommand = machine.Config{Name: "work"}, "sandbox net ask"
	v.asked, v.done = make(chan struct{}, 1), make(chan struct{})
	go v.notifyDesktop()
	defer close(v.done)
	for i := range 20 { // of which it is told once
		v.noteQuestion(stack.Question{ID: fmt.Sprintf("q%d", i%2), Host: "registry.npmjs.org", Port: 443, Rule: "registry.npmjs.org", Reason: "<b>trust me</b>"})
	}
	got := <-shown
	got.summary = strings.TrimSuffix(got.summary, " and 1 more") // as it may have come first
	if want := (notification{"sandbox", "work wants to reach registry.npmjs.org:443", "sandbox net ask work"}); got != want {
		t.Errorf("it is told %q, want %q", got, want)
	}
	if len(shown) > 0 {
		t.Errorf("then it is told %q", <-shown)
	}
}

func TestNobodyIsToldWhereThereIsNoDesktop(t *testing.T) {
	dir := t.TempDir()
	for _, dir := range []string{"", "relative", dir, filepath.Join(dir, "missing")} {
		if err := notify(t.Context(), dir, "a", "b"); err != nil {
			t.Errorf("%q: %v", dir, err)
		}
	}
}

// TestDesktopThatHangsHoldsNobodyUp has a bus that takes connections and says nothing.
func TestDesktopThatHangsHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "bus"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Read(make([]byte, 1)) // it has begun
			cancel()
			_, _ = io.Copy(io.Discard, c)
		}
	}()
	if err := notify(ctx, dir, "a", "b"); !errors.Is(err, context.Canceled) {
		t.Errorf("it ends with %v", err)
	}
}

func TestWaitingIsSaidOfWhatIsOpen(t *testing.T) {
	q := func(host, answer string) machine.Question {
		return machine.Question{Host: host, Port: 443, Answer: answer, Time: time.Now()}
	}
	for want, questions := range map[string][]machine.Question{
		"":                                      nil,
		"work wants to reach b.example:443":     {q("a.example", stack.AnswerOnce), q("b.example", ""), q("c.example", stack.AnswerNone)},
		"work wants to reach [2001:db8::1]:443": {q("2001:db8::1", "")},
		"work wants to reach c.example:443 and 1 more": {q("a.example", ""), q("b.example", stack.AnswerNever), q("c.example", "")},
	} {
		if got := waiting("work", questions); got != want {
			t.Errorf("%v: %q, want %q", questions, got, want)
		}
	}
}
