package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
)

// loadCommand writes to the share until it is killed, and prints a line each
// time that something has reached the disk.
const loadCommand = `i=0; while :; do i=$((i+1)); dd if=/dev/zero of=load bs=256k count=4 conv=fsync 2>/dev/null; echo $i; done`

// TestFaults kills each process at each time of a sandbox's life, and damages
// what it keeps. It is one sandbox all along: each case that starts it proves
// that the case before has left nothing in its way.
func TestFaults(t *testing.T) {
	f := newFaults(t)
	t.Run("two runs of one name", f.twoRuns)
	t.Run("qemu has no privileges", f.qemuIsConfined)
	t.Run("a supervisor of another version", f.otherVersion)

	for _, victim := range []string{"supervisor", "qemu", "virtiofsd"} {
		t.Run(victim+" dies during boot", func(t *testing.T) { f.diesDuringBoot(t, victim) })
	}
	t.Run("cli dies", f.cliDies)

	// What the next start meets.
	damages := map[string]func(*testing.T){"supervisor": f.rebooted, "qemu": f.halfState, "virtiofsd": f.noLock}
	for _, victim := range []string{"supervisor", "qemu", "virtiofsd"} {
		for _, phase := range []string{"idle", "under load", "during stop"} {
			if phase == "idle" {
				t.Run("damage before "+victim, damages[victim])
			}
			t.Run(victim+" dies "+phase, func(t *testing.T) { f.dies(t, victim, phase) })
		}
	}
	t.Run("damaged configuration", f.damagedConfig)
	t.Run("one command's sandbox", f.temporary)
	t.Run("rm and start at once", f.rmAndStart)
}

// twoRuns leaves the sandbox running.
func (f *faults) twoRuns(t *testing.T) {
	args := []string{"run", "-d", "--name", f.name, "--share", f.share}
	a, b := f.background(t, args...), f.background(t, args...)
	errA, errB := a.wait(), b.wait()
	if (errA == nil) == (errB == nil) {
		t.Fatalf("one of two should succeed: %v, %v\n%s\n%s", errA, errB, a.text(), b.text())
	}
	if text := a.text() + b.text(); strings.Count(text, "exists already") != 1 {
		t.Errorf("the loser is not told why:\n%s", text)
	}
	f.expectStatus(t, machine.StatusRunning)
}

func (f *faults) qemuIsConfined(t *testing.T) {
	status := procStatus(t, f.sandbox(t).State().QEMU)
	for field, want := range map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "CapEff": "0000000000000000", "CapPrm": "0000000000000000"} {
		if status[field] != want {
			t.Errorf("%s of QEMU is %q, want %q", field, status[field], want)
		}
	}
	if os.Getuid() != 0 {
		return
	}
	if uid := strings.Fields(status["Uid"]); uid[0] == "0" || uid[1] == "0" || uid[2] == "0" || uid[3] == "0" {
		t.Errorf("QEMU runs as %v", uid)
	}
	for _, pid := range f.processes(t)["virtiofsd"] {
		if got := procStatus(t, pid)["CapEff"]; f.sameUserNamespace(t, pid) && got != "0000000000000000" {
			t.Errorf("virtiofsd has the capabilities %s over the host", got)
		}
	}
}

// otherVersion meets a supervisor whose state a newer program wrote, and then
// one that speaks otherwise: neither can be used, and both can be seen and
// stopped. It leaves the sandbox stopped.
func (f *faults) otherVersion(t *testing.T) {
	// After this, the supervisor writes its state only when it ends.
	f.waitState(t, func(st machine.State) bool {
		_, ok := st.Time(machine.StageSystem)
		return ok
	})
	before := f.open(t)
	state, err := os.ReadFile(filepath.Join(f.dirs.State, f.name, "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	replace := func(old, with string) {
		t.Helper()
		if !strings.Contains(string(state), old) {
			t.Fatalf("the state has no %s:\n%s", old, state)
		}
		f.write(t, "state.json", strings.Replace(string(state), old, with, 1))
	}
	replace("{", `{"colour": "red",`)
	f.expectStatus(t, machine.StatusBroken)
	f.fails(t, "from a newer version of sandbox", "exec", f.name, "--", "true")
	f.fails(t, "sandbox stop "+f.name, "exec", f.name, "--", "true")
	f.fails(t, "already", "start", f.name)
	f.fails(t, "stop it first", "rm", f.name)

	replace(fmt.Sprintf(`"api": %d`, api.Version), `"api": 99`)
	f.expectStatus(t, machine.StatusRunning)
	f.fails(t, "another version of sandbox", "exec", f.name, "--", "true")
	f.fails(t, "sandbox stop "+f.name, "attach", "--console", f.name)
	f.ok(t, "stop", f.name)
	before.waitGone(t)
	f.expectNothingLeft(t, "stop")
	f.expectStatus(t, machine.StatusStopped)
}

func (f *faults) diesDuringBoot(t *testing.T, victim string) {
	start := f.background(t, "start", f.name)
	f.waitState(t, f.boots(t))
	f.kill(t, victim, unix.SIGKILL)
	if err := start.wait(); err == nil {
		t.Errorf("start succeeded without its %s", victim)
	}
	said := map[string]string{"supervisor": "supervisor ended", "qemu": "QEMU ended", "virtiofsd": "file server"}[victim]
	if !strings.Contains(start.text(), said) {
		t.Errorf("start does not say what happened (%q):\n%s", said, start.text())
	}
	f.expectNothingLeft(t, victim)
	f.expectStatus(t, machine.StatusCrashed)
}

// boots tells whether the QEMU runs that the state names, and not one of an
// earlier start that ended badly.
func (f *faults) boots(t *testing.T) func(machine.State) bool {
	return func(st machine.State) bool {
		return st.Status == machine.StatusStarting && slices.Contains(f.processes(t)["qemu"], st.QEMU)
	}
}

// cliDies kills the commands that start, exec and stop: none of them matters
// to the sandbox.
func (f *faults) cliDies(t *testing.T) {
	start := f.background(t, "start", f.name)
	f.waitState(t, f.boots(t))
	start.kill(t)
	// The console can be attached to while the guest boots.
	console := f.firstLine(t, "attach", "--console", "--read-only", f.name)
	f.waitState(t, func(st machine.State) bool { return st.Status == machine.StatusRunning })

	load := f.load(t)
	load.kill(t)
	// The guest is told: what the command ran does not go on for ever.
	f.ok(t, "exec", f.name, "--", "timeout", "120", "sh", "-c", "while pgrep -f 'count=[4]'; do sleep 0.1; done")

	stop := f.background(t, "stop", f.name)
	f.waitState(t, func(st machine.State) bool { return st.Status == machine.StatusStopping })
	stop.kill(t)
	f.ok(t, "stop", f.name) // waits for the one that is under way
	if err := console.wait(); err != nil {
		t.Errorf("the console should have ended with the sandbox: %v\n%s", err, console.text())
	}
	f.expectNothingLeft(t, "cli")
	f.expectStatus(t, machine.StatusStopped)
}

func (f *faults) dies(t *testing.T, victim, phase string) {
	f.ok(t, "start", f.name)
	word := victim + " " + phase
	f.ok(t, "exec", f.name, "--", "sh", "-c", `echo "$1" >word; echo "$1" >~/word; sync word ~/word`, "sh", word)
	var busy *invocation
	switch phase {
	case "under load":
		busy = f.load(t)
	case "during stop":
		busy = f.background(t, "stop", f.name)
		f.waitState(t, func(st machine.State) bool { return st.Status == machine.StatusStopping })
	}
	signal := unix.SIGKILL
	if victim == "supervisor" && phase == "idle" {
		signal = unix.SIGABRT // as a defect of its own ends it
	}
	f.kill(t, victim, signal)
	if signal == unix.SIGABRT && !strings.Contains(f.ok(t, "logs", "--of", "supervisor", f.name), "\ngoroutine ") {
		t.Error("the supervisor's log does not say where it was at its end")
	}
	if busy != nil {
		if err := busy.wait(); phase == "under load" && exitStatus(err) != exitRunFailure {
			t.Errorf("the command in the guest ended with %v:\n%s", err, busy.text())
		}
	}
	f.expectNothingLeft(t, victim)
	if phase == "during stop" {
		f.expectStatus(t, machine.StatusCrashed, machine.StatusStopped)
	} else {
		f.expectStatus(t, machine.StatusCrashed)
	}
	for _, path := range []string{filepath.Join(f.share, "word"), filepath.Join(f.sandbox(t).Files().Home(), "word")} {
		if got, err := os.ReadFile(path); err != nil || string(got) != word+"\n" {
			t.Errorf("%s: %q, %v; want %q", path, got, err, word)
		}
	}
}

// rebooted is what a power failure leaves: a state that names processes whose
// numbers strangers have now, and sockets that nobody serves.
func (f *faults) rebooted(t *testing.T) {
	stranger := f.stranger(t)
	state := fmt.Sprintf(`{"status":"running","supervisor":%d,"qemu":%[1]d,"started":"2020-01-01T00:00:00Z"}`, stranger.Process.Pid)
	f.write(t, "state.json", state)
	runtime := filepath.Join(f.dirs.Runtime, f.name)
	if err := os.MkdirAll(runtime, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"api.sock", "home"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(runtime, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		l.Close()
	}
	f.expectStatus(t, machine.StatusCrashed)
	f.ok(t, "stop", f.name)
	f.fails(t, "sandbox start "+f.name, "exec", f.name, "--", "true")
	if !alive(stranger.Process.Pid) {
		t.Error("a stranger was killed")
	}
}

func (f *faults) halfState(t *testing.T) {
	f.write(t, "state.json", `{"status": "runn`)
	f.expectStatus(t, machine.StatusCrashed)
	f.fails(t, "state.json", "exec", f.name, "--", "true")
}

func (f *faults) noLock(t *testing.T) {
	if err := os.Remove(filepath.Join(f.dirs.State, f.name, "lock")); err != nil {
		t.Fatal(err)
	}
}

func (f *faults) damagedConfig(t *testing.T) {
	path := filepath.Join(f.dirs.State, f.name, "config.json")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, "config.json", string(whole[:len(whole)/2]))
	f.expectStatus(t, machine.StatusBroken)
	f.fails(t, "config.json is damaged", "start", f.name)
	f.fails(t, f.sandbox(t).Files().Home(), "exec", f.name, "--", "true")
	f.expectNothingLeft(t, "start")
	f.write(t, "config.json", string(whole))
}

// temporary kills the command that owns a sandbox, during boot and under load:
// nothing of the sandbox stays.
func (f *faults) temporary(t *testing.T) {
	gone := func(c *invocation) {
		t.Helper()
		before := f.open(t)
		c.kill(t)
		before.waitGone(t)
		if _, err := f.host.Get(f.name + "-rm"); err == nil {
			// The supervisor has ended, so it must have removed it.
			t.Errorf("the sandbox is still there: %s", f.ok(t, "ls"))
		}
	}
	run := []string{"run", "--rm", "--name", f.name + "-rm", "--share", f.share, "--", "sh", "-c", loadCommand}
	booting := f.background(t, run...)
	f.waitFor(t, func() bool { return len(f.processes(t)["qemu"]) > 0 })
	gone(booting)
	gone(f.firstLine(t, run...))
}

// rmAndStart lets the two race: one of them wins, the other is told why.
func (f *faults) rmAndStart(t *testing.T) {
	for i := range 3 {
		name := fmt.Sprintf("%s-%d", f.name, i)
		c, err := f.sandbox(t).Config()
		if err != nil {
			t.Fatal(err)
		}
		c.Name = name
		if _, err := f.host.Create(c); err != nil {
			t.Fatal(err)
		}
		rm, start := f.background(t, "rm", name), f.background(t, "start", name)
		rmErr := rm.wait()
		if rmErr != nil { // then start won, and need not finish
			if !strings.Contains(rm.text(), "stop it first") {
				t.Errorf("rm does not say why it refuses:\n%s", rm.text())
			}
			f.ok(t, "rm", "--force", name)
		}
		if err := start.wait(); err == nil {
			t.Errorf("start succeeded although the sandbox was removed")
		} else if rmErr == nil && !strings.Contains(start.text(), "no sandbox named") && !strings.Contains(start.text(), "remov") {
			t.Errorf("start does not say that the sandbox is gone:\n%s", start.text())
		}
		if _, err := os.Stat(filepath.Join(f.dirs.State, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
	f.ok(t, "rm", f.name)
	f.expectNothingLeft(t, "rm")
	for _, dir := range []string{f.dirs.State, f.dirs.Runtime} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "ports.lock" {
				t.Errorf("%s is left in %s", e.Name(), dir)
			}
		}
	}
}

// TestFullDisk fills the disk that the sandboxes are on.
func TestFullDisk(t *testing.T) {
	f := newFaults(t)
	f.onSmallDisk(t, 16)
	free := f.fillDisk(t)
	f.fails(t, "no space left", "run", "-d", "--name", f.name, "--share", f.share)
	free()
	f.ok(t, "run", "-d", "--name", f.name, "--share", f.share)
	// A snapshot for which there is no room is not there, and the guest goes on.
	f.fails(t, "no space left", "snapshot", "save", f.name, "large")
	if left := f.inNamespace(t, "find", filepath.Join(f.dirs.State, f.name, "snapshots"), "-mindepth", "1"); left != "" {
		t.Errorf("left of a snapshot:\n%s", left)
	}
	f.ok(t, "exec", f.name, "--", "true")
	free = f.fillDisk(t)
	// The guest is told, and goes on; so do we.
	f.fails(t, "No space left", "exec", f.name, "--", "sh", "-c", "dd if=/dev/zero of=$HOME/big bs=64k count=1000 conv=fsync")
	f.ok(t, "exec", f.name, "--", "sh", "-c", "echo from the share >word")
	f.ok(t, "stop", f.name)
	if ls := f.ok(t, "ls", "--json"); !strings.Contains(ls, `"status": "stopped"`) {
		t.Errorf("after a stop on a full disk:\n%s", ls)
	}
	f.ok(t, "start", f.name)
	f.ok(t, "rm", "--force", f.name)
	free()
	if left := f.inNamespace(t, "find", f.dirs.State, "-mindepth", "1"); left != "" {
		t.Errorf("left on the disk:\n%s", left)
	}
	if _, err := os.Stat(filepath.Join(f.share, "word")); err != nil {
		t.Error(err)
	}
}

// TestFullDiskOfAGuest fills the disk on which the file of a guest's own disk
// grows: the guest stands still, says why, and goes on when there is room.
func TestFullDiskOfAGuest(t *testing.T) {
	f := newFaults(t)
	f.onSmallDisk(t, 256)
	f.ok(t, "run", "-d", "--name", f.name, "--share", f.share, "--disk", "1G", "--timeout", "4m")
	seen, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	watch := f.command(t, "events", f.name)
	watch.cmd.Stdout = w
	watch.start(t)
	w.Close()
	events := bufio.NewReader(seen)
	await := func(event string) {
		t.Helper()
		for {
			line, err := events.ReadString('\n')
			if err != nil {
				t.Fatalf("there is no event %s: %v\n%s%s", event, err, f.ok(t, "ls"), watch.text())
			}
			if strings.Contains(line, event) {
				return
			}
		}
	}
	// fill returns when a command that began before has met the full disk.
	fill := func(file, command string) (write *invocation, free func()) {
		t.Helper()
		full := filepath.Join(f.share, file)
		write = f.firstLine(t, "exec", "--user", "root", f.name, "--", "sh", "-c", "echo begun; until test -e "+file+"; do sleep 0.1; done; "+command)
		free = f.fillDisk(t)
		if err := os.WriteFile(full, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		await(`"status":"paused"`)
		return write, free
	}

	write, free := fill("first", "dd if=/dev/urandom of=/var/big bs=64k count=256 conv=fsync && sha256sum </var/big >/var/sum")
	if ls := f.ok(t, "ls"); !strings.Contains(ls, "paused (the host has no space left") {
		t.Errorf("ls does not say why it stands still:\n%s", ls)
	}
	f.fails(t, "goes on by itself", "exec", f.name, "--", "true")
	free()
	await(`"status":"running"`)
	if err := write.wait(); err != nil {
		t.Errorf("the command that wrote: %v\n%s", err, write.text())
	}
	f.ok(t, "exec", f.name, "--", "sh", "-c", "sha256sum </var/big | cmp - /var/sum")

	// What stands still for want of room can be ended as well.
	write, free = fill("second", "dd if=/dev/zero of=/var/more bs=64k count=4096 conv=fsync")
	f.ok(t, "stop", "--time", "1s", f.name)
	if err := write.wait(); exitStatus(err) != exitRunFailure {
		t.Errorf("the command that was cut off: %v\n%s", err, write.text())
	}
	if ls := f.ok(t, "ls", "--json"); !strings.Contains(ls, `"status": "stopped"`) {
		t.Errorf("after a stop on a full disk:\n%s", ls)
	}
	f.ok(t, "rm", f.name)
	free()
	if left := f.inNamespace(t, "find", f.dirs.State, "-mindepth", "1"); left != "" {
		t.Errorf("left on the disk:\n%s", left)
	}
}

// load starts loadCommand in the sandbox and returns when it writes.
func (f *faults) load(t *testing.T) *invocation {
	t.Helper()
	return f.firstLine(t, "exec", f.name, "--", "sh", "-c", loadCommand)
}

// firstLine runs a command and returns when it has printed a line.
func (f *faults) firstLine(t *testing.T, args ...string) *invocation {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := f.command(t, args...)
	c.cmd.Stdout = w
	c.start(t)
	w.Close()
	lines := bufio.NewReader(r)
	if _, err := lines.ReadString('\n'); err != nil {
		t.Fatalf("no output: %v\n%s", err, c.text())
	}
	go func() {
		defer r.Close()
		_, _ = lines.WriteTo(discard{})
	}()
	return c
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
