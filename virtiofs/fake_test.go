package virtiofs

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// fakeTask makes this test binary a virtiofsd that serves nothing: its value is what it does when it is ready.
const fakeTask = "VIRTIOFS_TEST_FAKE"

// What a fake may do, once ready.
const (
	fakeServes = "serve"  // until it is told to end
	fakeLeaves = "leave"  // like virtiofsd when its client disconnects
	fakeFails  = "fail"   // in the same moment, with an error
	fakeGroups = "groups" // gives its groups up, as virtiofsd does, says which it has then, and serves
	fakeSetsID = "setid"  // tries to make files with set-id bits in what it serves, says how that went, and serves
)

const sayRefused = `echo "[ERROR virtiofsd] Error entering sandbox: Unshare(Os { code: 1, kind: PermissionDenied })" >&2; exit 1;`

// fake returns a Daemon that is a shell script. It sees virtiofsd's arguments.
func fake(t *testing.T, body string) Daemon {
	t.Helper()
	return Daemon{Path: filepath.Join(script(t, body), program), Version: "fake"}
}

// become ends a script with one of the tasks.
func become(t *testing.T, task string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(`exec env %s=%s '%s' "$@"`, fakeTask, task, self)
}

// beFake is the fake's main function. It returns its exit code.
func beFake(task string, args []string) int {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM) // the first process of a namespace is deaf to signals that it does not handle
	dir := argument(args, "--shared-dir=")
	if !slices.Contains(args, "--sandbox=none") {
		if err := errors.Join(syscall.Chroot(dir), os.Chdir("/")); err != nil {
			fmt.Fprintln(os.Stderr, "Error entering sandbox:", err)
			return 1
		}
	}
	switch task {
	case fakeSetsID:
		trySetID()
		task = fakeServes
	case fakeGroups:
		err := syscall.Setgroups(nil)
		groups, _ := syscall.Getgroups()
		fmt.Fprintf(os.Stderr, "gave them up: %v, has %v\n", err, groups)
		task = fakeServes
	}
	fmt.Fprintln(os.Stderr, "[INFO virtiofsd] "+readyLine+"...")
	if task == fakeServes {
		<-stop
		return 1
	}
	fd, _ := strconv.Atoi(argument(args, "--fd="))
	if err := awaitClient(fd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if task == fakeFails {
		fmt.Fprintln(os.Stderr, "disk on fire")
		return 3
	}
	return 0
}

func argument(args []string, flag string) string {
	for _, a := range args {
		if value, ok := strings.CutPrefix(a, flag); ok {
			return value
		}
	}
	return ""
}

// awaitClient returns when a client has come and gone.
func awaitClient(fd int) error {
	socket := os.NewFile(uintptr(fd), "socket")
	l, err := net.FileListener(socket)
	if err != nil {
		return err
	}
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, conn)
	return err
}

// connectOnce lets a fake that waits for a client go on.
func connectOnce(t *testing.T, socket string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}
