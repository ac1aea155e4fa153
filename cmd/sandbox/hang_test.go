package main

import (
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

	"github.com/sourcery-zone/sandbox/machine"
)

// hang is far more than any single test takes on a slow machine, with a guest in it
// that does not boot. The tests together have no time limit.
const hang = 30 * time.Minute

// watchForHang has a test that does not end say where it hangs, and fail, unless the
// returned function is called in time. If that does not end it, all tests end. Before
// it fails, stood is called if a processor of a guest stands still; it may be nil.
func watchForHang(name, mark string, stood func()) (stop func()) {
	show := time.AfterFunc(hang, func() { endHang(os.Stderr, name, mark, stood) })
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
// What those of their own have written is in the logs of sandboxes, and before, its
// guests are asked what they do.
func endHang(w io.Writer, name, mark string, stood func()) {
	fmt.Fprintf(w, "%s has not ended in %v: it hangs\n", name, hang)
	logs := openLogs(mark) // before the test fails, which removes its directories
	for _, log := range logs {
		if data, _ := io.ReadAll(log); stood != nil && stoodStill.Match(data) {
			stood()
		}
	}
	pids := programsWith(mark)
	for _, pid := range pids {
		fmt.Fprintf(w, "%d: %q\n", pid, procStrings(pid, "cmdline"))
	}
	for _, pid := range pids {
		if argv := procStrings(pid, "cmdline"); len(argv) == 3 && argv[1] == machine.SuperviseCommand {
			ask := exec.Command("timeout", "-k", "30", "30", argv[0], "exec", "--user", "root", argv[2], "--", "sh", "-c",
				"ps axo pid,stat,wchan:30,args; echo l >/proc/sysrq-trigger; echo w >/proc/sysrq-trigger")
			ask.Env = procStrings(pid, "environ")
			said, err := ask.CombinedOutput()
			fmt.Fprintf(w, "the guest %s does this: %v\n%s\n", argv[2], err, said)
		}
	}
	for _, pid := range slices.Backward(pids) { // the youngest first, before it fails as another one has ended
		_ = syscall.Kill(pid, syscall.SIGABRT)
	}
	for end := time.Now().Add(time.Minute); slices.ContainsFunc(pids, alive) && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
	}
	for _, log := range logs {
		if info, err := log.Stat(); err == nil {
			_, _ = log.Seek(max(0, info.Size()-64<<10), io.SeekStart)
		}
		data, err := io.ReadAll(log)
		fmt.Fprintf(w, "%s: %v\n%s\n", log.Name(), err, data)
		log.Close()
	}
}

// procStrings are the strings of a process's file in /proc that ends each by a zero.
func procStrings(pid int, file string) []string {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
	return strings.Split(strings.TrimSuffix(string(data), "\x00"), "\x00")
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

// programsWith returns the processes but this one that have a string in their command
// line or environment, in the order of their numbers.
func programsWith(mark string) []int {
	has := func(s string) bool { return strings.Contains(s, mark) }
	return slices.DeleteFunc(allProcesses(), func(pid int) bool {
		return pid == os.Getpid() || !slices.ContainsFunc(procStrings(pid, "cmdline"), has) && !slices.ContainsFunc(procStrings(pid, "environ"), has)
	})
}

// allProcesses returns the numbers of all processes, in their order.
func allProcesses() (pids []int) {
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
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
	other, _ := start("sh", "-c", `echo "rcu: INFO: rcu_preempt detected stalls" >"$OF_THE_TEST/some.log"; exec sleep 3600 >&-`)
	var shown strings.Builder
	ended := make(chan error, 2)
	go func() { ended <- ours.Wait() }()
	go func() { ended <- other.Wait() }()
	var stood bool
	endHang(&shown, "a test", filepath.Dir(dir), func() { stood = true })
	if !stood {
		t.Error("a processor that stands still is not noticed")
	}
	for range 2 {
		if exit, ok := errors.AsType[*exec.ExitError](<-ended); !ok {
			t.Errorf("a program has ended well: %v", exit)
		}
	}
	for _, want := range []string{"a test has not ended", fmt.Sprintf(`%d: ["sleep" "3600"]`, other.Process.Pid), "some.log: <nil>\nrcu: INFO: rcu_preempt detected stalls\n"} {
		if !strings.Contains(shown.String(), want) {
			t.Errorf("what is shown is\n%s\nand lacks %q", &shown, want)
		}
	}
	if want := "hang_test.go:"; !strings.Contains(said.String(), want) {
		t.Errorf("the program in the foreground says\n%s\nand not where it hangs", said)
	}
}
