//go:build linux

package server

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lateWriters follows those who hold an output of a process that has ended.
type lateWriters struct {
	leader int       // the process that has ended
	quiet  time.Time // since when they have neither written nor computed; zero: not known
	ticks  uint64    // of the processor that they had used by then
}

// expected reports, after a pause in an output, whether somebody may still
// have something to say on it.
func (w *lateWriters) expected(output *os.File) bool {
	writers := writersOf("/proc", output)
	// A daemon is not waited for: it has left the session, or has been told
	// not to mind its end, as by nohup.
	writers = slices.DeleteFunc(writers, func(p writer) bool { return p.session != w.leader || p.ignoresHangup })
	if len(writers) == 0 {
		return false
	}
	var ticks uint64
	for _, p := range writers {
		ticks += p.ticks
	}
	if w.quiet.IsZero() || ticks != w.ticks {
		w.quiet, w.ticks = time.Now(), ticks
	}
	return time.Since(w.quiet) < outputGrace
}

// writer is a process that holds the writing end of a pipe.
type writer struct {
	session       int
	ignoresHangup bool
	ticks         uint64 // of the processor, used so far
}

// writersOf finds the processes, other than this one, that hold the pipe open,
// in a mounted proc file system. Those that it may not look into are left out.
func writersOf(proc string, pipe *os.File) []writer {
	var stat unix.Stat_t
	if control(pipe, func(fd int) error { return unix.Fstat(fd, &stat) }) != nil {
		return nil
	}
	link := fmt.Sprintf("pipe:[%d]", stat.Ino)
	own := strconv.Itoa(os.Getpid())
	// The pattern is a valid one, and nothing else can fail.
	files, _ := filepath.Glob(proc + "/[0-9]*/fd/*")
	var writers []writer
	last := ""
	for _, file := range files {
		process := filepath.Dir(filepath.Dir(file))
		if process == last || filepath.Base(process) == own {
			continue
		}
		if target, err := os.Readlink(file); err != nil || target != link {
			continue
		}
		last = process
		if w, ok := readWriter(process); ok {
			writers = append(writers, w)
		}
	}
	return writers
}

// readWriter reads what proc(5) says about a process.
func readWriter(process string) (writer, bool) {
	var w writer
	stat, err := os.ReadFile(filepath.Join(process, "stat"))
	if err != nil {
		return w, false
	}
	// The name, in parentheses, may hold anything; the state follows it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	const session, userTicks, systemTicks = 3, 11, 12
	if len(fields) <= systemTicks {
		return w, false
	}
	w.session, _ = strconv.Atoi(fields[session])
	for _, i := range []int{userTicks, systemTicks} {
		ticks, _ := strconv.ParseUint(fields[i], 10, 64)
		w.ticks += ticks
	}
	status, err := os.ReadFile(filepath.Join(process, "status"))
	if err != nil {
		return w, false
	}
	for line := range strings.Lines(string(status)) {
		if mask, ok := strings.CutPrefix(line, "SigIgn:"); ok {
			ignored, _ := strconv.ParseUint(strings.TrimSpace(mask), 16, 64)
			w.ignoresHangup = ignored&(1<<(uint(unix.SIGHUP)-1)) != 0
		}
	}
	return w, true
}
