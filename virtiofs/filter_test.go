package virtiofs

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// trySetID is what a virtiofsd does in the directory that it serves, for a guest or because it was taken over.
func trySetID() {
	say := func(what string, err error) { fmt.Fprintf(os.Stderr, "%s: %v.\n", what, err) }
	try := func(what string, call uintptr, args ...uintptr) {
		args = append(args, make([]uintptr, 6-len(args))...)
		_, _, e := unix.Syscall6(call, args[0], args[1], args[2], args[3], args[4], args[5])
		if e != 0 {
			say(what, e)
			return
		}
		say(what, nil)
	}
	open := func(what string, flags int, mode uint32) {
		fd, err := unix.Openat(unix.AT_FDCWD, what, flags, mode)
		if err == nil {
			unix.Close(fd)
		}
		say("open "+what, err)
	}
	open("plain", unix.O_CREAT|unix.O_RDWR, 0o755)
	open("setuid", unix.O_CREAT|unix.O_RDWR, 0o4755)
	open("setgid", unix.O_CREAT|unix.O_RDWR, 0o2755)
	open("plain", unix.O_RDONLY, 0o6755) // a mode that nobody looks at
	open(".", unix.O_TMPFILE|unix.O_RDWR, 0o4755)
	fd, err := unix.Open("plain", unix.O_RDONLY, 0)
	say("open to chmod", err)
	say("fchmod plain", unix.Fchmod(fd, 0o700))
	say("fchmod setuid", unix.Fchmod(fd, 0o4755))
	say("fchmodat setgid", unix.Fchmodat(unix.AT_FDCWD, "plain", 0o2755, 0))
	name, _ := unix.BytePtrFromString("")
	try("fchmodat2 setuid", unix.SYS_FCHMODAT2, uintptr(fd), uintptr(unsafe.Pointer(name)), 0o4755, unix.AT_EMPTY_PATH)
	say("mkdir plain", unix.Mkdirat(unix.AT_FDCWD, "dir", 0o755))
	say("mkdir setgid", unix.Mkdirat(unix.AT_FDCWD, "dir2", 0o2755))
	say("mkfifo setuid", unix.Mknodat(unix.AT_FDCWD, "fifo", unix.S_IFIFO|0o4755, 0))
	_, err = unix.Openat2(unix.AT_FDCWD, "two", &unix.OpenHow{Flags: unix.O_CREAT | unix.O_RDWR, Mode: 0o4755})
	say("openat2", err)
	_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	say("io_uring", e)
}

func TestFilterRefusesSetIDBits(t *testing.T) {
	c, log := config(t)
	s, err := fake(t, become(t, fakeSetsID)).Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, s)
	log.await(t, readyLine) // a slow machine's Start does not wait for it
	for _, want := range []string{
		"open plain: <nil>", "open setuid: operation not permitted", "open setgid: operation not permitted",
		"open plain: <nil>", "open .: operation not permitted", "open to chmod: <nil>", "fchmod plain: <nil>",
		"fchmod setuid: operation not permitted", "fchmodat setgid: operation not permitted", "fchmodat2 setuid: operation not permitted",
		"mkdir plain: <nil>", "mkdir setgid: operation not permitted", "mkfifo setuid: operation not permitted",
		"openat2: function not implemented", "io_uring: function not implemented",
	} {
		if !strings.Contains(log.String(), want+".\n") {
			t.Errorf("%q is missing", want)
		}
	}
	if t.Failed() {
		t.Logf("it said:\n%s", log)
	}
}
