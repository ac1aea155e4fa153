package confine

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/process"
)

// selfTest is the name under which this program is executed anew.
const selfTest = "self test"

// trySelf says what a confined Go program can do.
func trySelf() {
	said := func(what string, err error) { fmt.Printf("%s: %v\n", what, err) }
	l, err := net.Listen("tcp", "127.0.0.1:0")
	said("listen", err)
	if err == nil {
		_, err = net.Dial("tcp", l.Addr().String())
		said("dial", err)
	}
	_, err = net.InterfaceAddrs()
	said("addresses", err)
	_, err = net.Dial("unix", "@somebody")
	said("unix", unwrapped(err))
	_, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)
	said("audit", err)
	_, err = os.ReadFile("/etc/passwd")
	said("file", unwrapped(err))
	entries, err := os.ReadDir("/")
	for _, e := range entries {
		fmt.Print(e.Name(), " ")
	}
	said("root", err)
}

func unwrapped(err error) error {
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	return err
}

func TestThisProgramConfinesItself(t *testing.T) {
	parts, err := OwnParts(t.Context()) // with the race detector it has libraries
	if err != nil {
		t.Fatal(err)
	}
	user, err := ChooseUser(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	r := &Room{Paths: parts.Paths(), Executes: parts.Executes(), User: user, Network: true}
	filter := WorkingFilter(append(InternetSockets(), Socket{Family: unix.AF_NETLINK, Type: unix.SOCK_RAW, OnlyProtocol: true})...)
	for _, w := range []way{userNamespace, landlockAlone} {
		if !w.namespaces && landlockVersion() == 0 {
			t.Skip("the kernel has no Landlock: " + Remedy)
		}
		var out bytes.Buffer
		spec := Spec{Room: r, Filter: filter}
		p := Program{Self: selfTest, Stdout: &out}
		l := Launcher{ctx: t.Context(), program: p, spec: spec, options: process.Options{Log: &out}}
		next, err := l.launch(w)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := next.run(w, p, spec); err != nil {
			t.Fatal(err)
		}
		<-next.process.Done()
		if err := next.process.Err(); err != nil {
			t.Errorf("it ended with %v: %s", err, out.String())
		}
		want := "listen: <nil>\ndial: <nil>\naddresses: <nil>\nunix: operation not permitted\naudit: operation not permitted\nfile: "
		if got := out.String(); !strings.HasPrefix(got, want) || strings.Contains(got, "file: <nil>") {
			t.Errorf("confined by %q, this program says %q", w.name, got)
		}
	}
}
