package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// hang is far more than any single test takes on a slow machine. The tests
// together have no time limit.
const hang = 45 * time.Minute

// watchForHang has a test that does not end say where it hangs, and fail, unless the
// returned function is called in time. If that does not end it, all tests end.
func watchForHang(name, mark string) (stop func()) {
	show := time.AfterFunc(hang, func() { endHang(os.Stderr, name, mark) })
	end := time.AfterFunc(hang+10*time.Minute, func() {
		debug.SetTraceback("all")
		panic(fmt.Sprintf("%s has not ended in %v: it hangs", name, hang))
	})
	return func() {
		show.Stop()
		end.Stop()
	}
}

// endHang ends the programs of a test, in whose command line or environment its mark
// is: the beginning of the paths that are its own. The signal has those in Go print
// what each goroutine waits for, and a program in the foreground fails with that.
// What those of their own have written is in the logs of sandboxes.
func endHang(w io.Writer, name, mark string) {
	fmt.Fprintf(w, "%s has not ended in %v: it hangs. Its programs are ended:\n", name, hang)
	logs := openLogs(mark) // now, as a test that fails removes its directories
	pids := programsWith(mark)
	for _, pid := range slices.Backward(pids) { // the youngest first, before it fails as another one has ended
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		fmt.Fprintf(w, "%d: %s\n", pid, bytes.ReplaceAll(line, []byte{0}, []byte{' '}))
		_ = syscall.Kill(pid, syscall.SIGABRT)
	}
	for end := time.Now().Add(time.Minute); slices.ContainsFunc(pids, alive) && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	for _, log := range logs {
		data, _ := io.ReadAll(log)
		fmt.Fprintf(w, "%s:\n%s\n", log.Name(), data[max(0, len(data)-64<<10):])
		log.Close()
	}
}

// openLogs opens the logs in directories whose paths begin with the mark.
func openLogs(mark string) (logs []*os.File) {
	dirs, _ := filepath.Glob(mark + "*")
	for _, dir := range dirs {
		_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && filepath.Ext(path) == ".log" {
				if log, err := os.Open(path); err == nil {
					logs = append(logs, log)
				}
			}
			return nil
		})
	}
	return logs
}

// programsWith returns the processes that have a string in their command line or
// environment, in the order of their numbers.
func programsWith(mark string) (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
		environ, _ := os.ReadFile(filepath.Join(dir, "environ"))
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err == nil && pid != os.Getpid() && (bytes.Contains(line, []byte(mark)) || bytes.Contains(environ, []byte(mark))) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// TestHangIsShown has a program hang, and another one that has written a log.
func TestHangIsShown(t *testing.T) {
	if os.Getenv(helperVariable) == "hang" {
		os.Stdout.Close()
		select {}
	}
	dir := t.TempDir()
	start := func(argv ...string) (*exec.Cmd, *strings.Builder) {
		var out strings.Builder
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Env = append(os.Environ(), helperVariable+"=hang", "OF_THE_TEST="+dir)
		cmd.Stderr = &out
		hangs, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(hangs); err != nil {
			t.Fatal(err)
		}
		return cmd, &out
	}
	ours, said := start(os.Args[0], "-test.run", "TestHangIsShown$")
	other, _ := start("sh", "-c", `echo this is the log >"$OF_THE_TEST/some.log"; exec sleep 3600 >&-`)
	var shown strings.Builder
	ended := make(chan error, 2)
	go func() { ended <- ours.Wait() }()
	go func() { ended <- other.Wait() }()
	endHang(&shown, "a test", filepath.Dir(dir))
	for range 2 {
		if exit, ok := errors.AsType[*exec.ExitError](<-ended); !ok {
			t.Errorf("a program has ended well: %v", exit)
		}
	}
	for _, want := range []string{"a test has not ended", fmt.Sprintf("%d: sleep 3600", other.Process.Pid), "some.log:\nthis is the log\n"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("what is shown is\n%s\nand lacks %q", &shown, want)
		}
	}
	if want := "hang_test.go:"; !strings.Contains(said.String(), want) {
		t.Errorf("the program in the foreground says\n%s\nand not where it hangs", said)
	}
}
