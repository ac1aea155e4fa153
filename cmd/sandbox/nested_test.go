package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/nested"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qemu"
)

// nestedVariable names the scripts that run within a guest, separated by spaces.
const nestedVariable = "SANDBOX_TEST_NESTED"

// nestedScripts are those that make test runs there; make nested runs nearly all.
const nestedScripts = "run"

// TestNested runs this launcher inside of a guest, whose emulated processor has
// AMD's virtualisation: under KVM, which the machines of the tests have not, on
// microvm and over vsock, whose addresses are none of a test's business on the
// machine itself.
//
// QEMU's emulation of that processor is not exact, and the outer guest's kernel dies
// of it every now and then, or a nested guest's, each time in another place. Once it could say why: a
// page fault in svm_vcpu_run, after the nested guest's exit and before the kernel has
// its own GS base back, so that the handler faults at its first use of that
// (exc_page_fault), again and again, until the stack is full. No program brings a
// kernel there on a real processor. So what has failed is tried again in a new guest,
// and what has passed is not. What is wrong with us fails each time.
func TestNested(t *testing.T) {
	o := collectOuter(t)
	run := func(name string, part func(*trial)) {
		t.Run(name, func(t *testing.T) {
			if err := o.try(t, part); err != nil {
				t.Fatal(err)
			}
		})
	}
	run("kvm", o.testKVM)
	for script := range strings.FieldsSeq(cmp.Or(os.Getenv(nestedVariable), nestedScripts)) {
		run(script, func(a *trial) { o.runScript(a, script) })
	}
}

// TestWhatHasFailedIsTriedInAnotherGuest is about what TestNested tries again: a program
// in the place of ours plays the guest, which is dead while there is a file.
func TestWhatHasFailedIsTriedInAnotherGuest(t *testing.T) {
	dir := t.TempDir()
	program, dead := filepath.Join(dir, "sandbox"), filepath.Join(dir, "dead")
	text := `#!/bin/sh
cd "${0%/*}"
case $1 in
run) echo >>guests ;;
exec) test ! -e dead ;;
rm) rm -f dead ;;
esac
`
	if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	o := &outer{config: nested.Config{Program: program, Image: &image.Image{}, Env: os.Environ()}}
	var runs int
	die := func(a *trial) {
		if err := os.WriteFile(dead, nil, 0o644); err != nil {
			t.Error(err)
		}
		a.Fatal("a command in a dead guest failed")
	}
	for _, test := range []struct {
		name         string
		part         func(*trial)
		fails        bool
		runs, guests int
	}{
		{"what passes runs once", func(*trial) {}, false, 1, 1},
		{"the guest that there is serves the next", func(*trial) {}, false, 1, 1},
		{"what fails once is tried in a new one", func(a *trial) {
			if runs == 1 {
				a.Fatal("a nested guest failed")
			}
		}, false, 2, 2},
		{"a guest that dies is replaced", func(a *trial) {
			if runs == 1 {
				die(a)
			}
		}, false, 2, 3},
		{"but not for ever", die, true, nestedTries, 2 + nestedTries},
		{"what is wrong with us fails", func(a *trial) { a.Fatal("wrong") }, true, nestedTries, 2 + 2*nestedTries},
	} {
		runs = 0
		err := o.try(t, func(a *trial) {
			runs++
			test.part(a)
		})
		guests, readErr := os.ReadFile(filepath.Join(dir, "guests"))
		if (err != nil) != test.fails || readErr != nil || runs != test.runs || len(guests) != test.guests {
			t.Errorf("%s: %v after %d runs, in the %d. guest (%v)", test.name, err, runs, len(guests), readErr)
		}
	}
}

// nestedTries is how often a part of TestNested is tried.
const nestedTries = 5

// outer is the guest in which guests are started, and after its death the next one.
type outer struct {
	config nested.Config
	guest  *nested.Guest // nil while there is none
}

// collectOuter collects what nested guests need: our programs, QEMU and virtiofsd
// with their libraries, the image, and the tests.
func collectOuter(t *testing.T) *outer {
	dirs := imageDirs(t)
	store, err := image.OpenStore(dirs.Images())
	if err != nil {
		t.Fatal(err)
	}
	img, err := store.Get(testImage())
	if err != nil {
		t.Fatalf("%v (make image builds it)", err)
	}
	bin, tools := buildBinaries(t), t.TempDir()
	if err := nested.Collect(t.Context(), tools, bin); err != nil {
		t.Fatal(err)
	}
	linkRemoteHelper(t, filepath.Join(tools, "bin"))
	buildProgram(t, "build", "-o", filepath.Join(tools, "bin", "vsock"), "./testdata/vsock")
	repository := filepath.Join(tools, "repository")
	if err := os.CopyFS(filepath.Join(repository, "testdata"), os.DirFS("../../testdata")); err != nil {
		t.Fatal(err)
	}
	buildProgram(t, "test", "-c", "-o", filepath.Join(repository, "cmd", "sandbox", "sandbox.test"), ".")
	runtime, err := os.MkdirTemp("", "sb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(runtime) })
	o := &outer{config: nested.Config{
		Program: filepath.Join(bin, "sandbox"), Image: img, Tools: tools,
		Env: append(os.Environ(), "XDG_STATE_HOME="+t.TempDir(), "XDG_RUNTIME_DIR="+runtime),
	}}
	t.Cleanup(func() {
		if err := o.remove(); err != nil {
			t.Error(err)
		}
	})
	return o
}

// try runs a part of the test, in the guest that there is or a new one, and where it
// fails, again in another one.
func (o *outer) try(t *testing.T, part func(*trial)) error {
	for try := 1; ; try++ {
		stop := watchForHang(t.Name(), filepath.Join(os.TempDir(), t.Name()), nil)
		a := &trial{test: t}
		a.run(func() {
			o.start(a)
			part(a)
		})
		stop()
		if !a.failed {
			t.Log(a.log.String())
			return nil
		}
		t.Log(a.log.String())
		if died := o.died(t.Context()); died != nil {
			t.Log(died)
			if o.guest != nil {
				t.Logf("that guest says of itself:\n%s", o.guest.Logs())
			}
		}
		if err := o.remove(); err != nil {
			return err
		}
		if try == nestedTries {
			return fmt.Errorf("it has failed in %d guests, the last time so:\n%s", try, a.log.String())
		}
		t.Log("it is tried again in a new guest")
	}
}

// start starts the guest unless there is one.
func (o *outer) start(a *trial) {
	if o.guest != nil {
		return
	}
	guest, err := nested.Start(a.test.Context(), o.config)
	if err != nil {
		a.Fatal(err)
	}
	o.guest = guest
}

// died is why the guest cannot be asked any more, or nil if it can.
func (o *outer) died(ctx context.Context) error {
	if o.guest == nil {
		return errors.New("there is no guest that could have KVM")
	}
	return o.guest.Responds(ctx)
}

func (o *outer) remove() error {
	if o.guest == nil {
		return nil
	}
	guest := o.guest
	o.guest = nil
	return guest.Remove()
}

// sh runs a script as root in the guest and returns what it prints.
func (o *outer) sh(a *trial, script string) string {
	ctx, cancel := context.WithTimeout(a.test.Context(), stepPatience)
	defer cancel()
	cmd := o.guest.Command(ctx, script)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		a.Fatalf("%s\n%v\n%s%s", script, err, stdout.Bytes(), stderr.Bytes())
	}
	return stdout.String()
}

// stepPatience is for a nested guest of which a processor stands still, and a command that waits for it: a step takes less than
// a minute on a good machine.
const stepPatience = 15 * time.Minute

// inspected is what the test reads of a nested sandbox.
type inspected struct {
	State machine.State `json:"state"`
	cid   uint32
}

func (o *outer) inspect(a *trial, name string) inspected {
	var i inspected
	if err := json.Unmarshal([]byte(o.sh(a, "sandbox inspect "+name)), &i); err != nil {
		a.Fatal(err)
	}
	found := regexp.MustCompile(`guest-cid=(\d+)`).FindStringSubmatch(strings.Join(i.State.Argv, " "))
	if found == nil {
		a.Fatalf("%s has no CID: %q", name, i.State.Argv)
	}
	cid, err := strconv.ParseUint(found[1], 10, 32)
	if err != nil {
		a.Fatal(err)
	}
	i.cid = uint32(cid)
	return i
}

// runScript runs a script of TestGuests in the guest.
func (o *outer) runScript(a *trial, script string) {
	cmd := o.guest.Command(a.test.Context(), nested.EnableKVM+fmt.Sprintf(`cd %[1]s/repository/cmd/sandbox
%[2]s=1 %[3]s=%[1]s/bin SANDBOX_IMAGE=%[4]s TMPDIR=/var/tmp ./sandbox.test -test.v -test.timeout 0 -test.run 'TestGuests$/^%[5]s$' 2>&1`,
		nested.Tools, guestsVariable, programsVariable, testImage(), script))
	// At once, because some take many minutes.
	var said bytes.Buffer
	cmd.Stdout = io.MultiWriter(a.test.Output(), &said)
	cmd.Stderr = a.test.Output()
	if err := cmd.Run(); err != nil {
		a.Fatalf("the script %s: %v", script, err)
	}
	if !strings.Contains(said.String(), "--- PASS: TestGuests/"+script+" ") {
		a.Fatalf("there is no script %s, or it was not run", script)
	}
}

// testKVM is about what only KVM and vsock have.
func (o *outer) testKVM(a *trial) {
	a.step("KVM is used once it can be", func() {
		for _, step := range []struct{ prepare, user, want string }{
			{"true", "root", "/dev/kvm does not exist"},
			{"modprobe kvm_amd && chmod 600 /dev/kvm && chgrp kvm /dev/kvm", "root", "chgrp kvm /dev/kvm && chmod 660 /dev/kvm"},
			{"chmod 660 /dev/kvm", "agent", "sudo usermod -aG kvm agent"},
			{"usermod -aG kvm agent", "agent", "ok    kvm"},
			{"true", "root", "ok    kvm"},
		} {
			doctor := fmt.Sprintf("%s\nsudo -u %s env PATH=$PATH sandbox doctor || true", step.prepare, step.user)
			got := o.sh(a, doctor)
			for probes := 1; probes < 5 && strings.Contains(got, "/dev/kvm opens, but"); probes++ { // a busy machine misses the probe's deadline
				got = o.sh(a, "rm -rf ~agent/.cache/sandbox /var/cache/sandbox\n"+doctor)
			}
			if !strings.Contains(got, step.want) {
				a.Fatalf("after %q, sandbox doctor of %s says\n%s", step.prepare, step.user, got)
			}
		}
	})

	// At once, and --transport auto must choose vsock.
	o.sh(a, `modprobe vhost_vsock && test -c /dev/vhost-vsock
pids=
for name in one two; do
	sandbox run -d --name $name --memory 512M --cpus 1 --net none --timeout 10m >$name.out 2>&1 &
	pids="$pids $!"
done
for pid in $pids; do
	wait $pid || { cat *.out >&2; exit 1; }
done`)
	one, two := o.inspect(a, "one"), o.inspect(a, "two")
	if one.cid == two.cid || one.State.Transport != agent.TransportVsock || two.State.Transport != agent.TransportVsock {
		a.Fatalf("two sandboxes at once: %+v and %+v", one, two)
	}
	if line := strings.Join(one.State.Argv, " "); !strings.Contains(line, "-machine microvm,") || !strings.Contains(line, "-accel kvm -cpu host ") {
		a.Fatalf("QEMU was started as %s", line)
	}
	for _, name := range []string{"one", "two"} {
		if got := o.sh(a, "sandbox exec "+name+" -- uname -n"); got != name+"\n" {
			a.Fatalf("%s is called %q", name, got)
		}
	}

	a.step("a taken CID is recognised", func() {
		got := o.sh(a, fmt.Sprintf(`! qemu-system-x86_64 -M q35 -accel tcg -nodefaults -display none -S -device vhost-vsock-pci,guest-cid=%d 2>&1`, one.cid))
		if !qemu.CIDTaken(got) {
			a.Fatalf("QEMU says %q", got)
		}
	})
	const refused = "connected, but not admitted: cannot log in to the guest's agent: ssh: handshake failed: ssh: unable to authenticate"
	a.step("another user's key is refused", func() {
		got := o.sh(a, fmt.Sprintf(`! sudo -u agent /opt/tools/bin/vsock login %d %d 2>&1`, one.cid, o.config.Image.Manifest.Agent.Port))
		if !strings.HasPrefix(got, refused) {
			a.Fatalf("a stranger is told %q", got)
		}
	})
	a.step("a lost connection is made anew", func() {
		o.sh(a, fmt.Sprintf(`vsock cut %d`, one.State.Supervisor))
		// The supervisor may not have noticed yet when the first one comes.
		got := o.sh(a, `for try in $(seq 100); do sandbox exec one -- echo again && exit; sleep 0.1; done; exit 1`)
		if got != "again\n" {
			a.Fatalf("got %q", got)
		}
		log := o.sh(a, `sandbox logs --of supervisor one`)
		if !strings.Contains(log, "reached again") {
			a.Fatalf("the supervisor's log:\n%s", log)
		}
	})
	const plugged = "cat /srv/plug/file"
	a.step("a share is plugged into a microvm", func() {
		// One that cannot be mounted is taken back, while the guest is still busy with it.
		got := o.sh(a, `mkdir /srv/plug
echo plugged >/srv/plug/file
sandbox exec one -- ln -s /etc evil
if sandbox mount one /srv/plug:evil/x 2>/run/refused; then exit 1; fi
if grep 'still there' /run/refused >&2; then exit 1; fi
sandbox mount one /srv/plug:/srv/plug >&2
sandbox exec one -- `+plugged)
		if got != "plugged\n" {
			a.Fatalf("the guest reads %q", got)
		}
	})
	a.step("a restored guest is reached by its new CID", func() {
		o.sh(a, `sandbox rm --force two
sandbox exec one -- sh -c 'echo saved >/dev/shm/fact'
sandbox snapshot save one mark
sandbox exec one -- sh -c 'echo lost >/dev/shm/fact'
sandbox snapshot restore one mark`)
		if got := o.sh(a, `sandbox exec one -- cat /dev/shm/fact`); got != "saved\n" {
			a.Fatalf("the restored guest's memory has %q", got)
		}
		if restored := o.inspect(a, "one"); restored.cid == one.cid {
			a.Fatalf("the CID is still %d", one.cid)
		}
	})
	a.step("what was plugged is restored, and unplugged", func() {
		got := o.sh(a, `sandbox exec one -- `+plugged+`
sandbox umount one /srv/plug >&2
sandbox exec one -- ls -A /srv/plug
sandbox mounts one >&2`)
		if got != "plugged\n" {
			a.Fatalf("the guest reads %q", got)
		}
	})
	a.step("a fork has a CID and a key of its own", func() {
		got := o.sh(a, `mkfifo said heard
sandbox exec one -- sh -c 'echo begun; read -r word; echo "$word"' <said >heard &
exec 3>said 4<heard
read -r word <&4
sandbox fork --name fork one >&2
sandbox exec fork -- uname -n
sandbox exec one -- uname -n
echo on >&3
cat <&4
wait $!`)
		if want := "fork\none\non\n"; got != want {
			a.Fatalf("the fork, its parent, and what ran in that say %q, not %q", got, want)
		}
		parent, fork := o.inspect(a, "one"), o.inspect(a, "fork")
		if fork.cid == parent.cid || fork.State.Transport != agent.TransportVsock {
			a.Fatalf("the fork is %+v and its parent is %+v", fork, parent)
		}
		// The supervisor's own connection was opened with the parent's key.
		login := func(owner string) string {
			return fmt.Sprintf(`vsock login %d %d /var/lib/sandbox/sandboxes/%s/keys/agent_key 2>&1`, fork.cid, o.config.Image.Manifest.Agent.Port, owner)
		}
		o.sh(a, login("fork"))
		if got := o.sh(a, "! "+login("one")); !strings.HasPrefix(got, refused) {
			a.Fatalf("who has the parent's key is told %q", got)
		}
	})
	a.step("a snapshot of another processor is refused", func() {
		got := o.sh(a, `sandbox snapshot save one elsewhere
sed -i 's/"cpu": "[^"]*"/"cpu": "another one"/' /var/lib/sandbox/sandboxes/one/snapshots/elsewhere/*.json
! sandbox snapshot restore one elsewhere 2>&1
sandbox exec one -- uname -n`)
		if !strings.Contains(got, "restore on a machine of the same kind") || !strings.HasSuffix(got, "one\n") {
			a.Fatalf("a restore says\n%s", got)
		}
	})
	o.sh(a, `sandbox rm --force one fork`)
	a.step("serial stays the fallback", func() {
		// The fallback itself is what the other tests run on.
		got := o.sh(a, `mv /dev/vhost-vsock /dev/away; sandbox doctor || true; mv /dev/away /dev/vhost-vsock`)
		if !strings.Contains(got, "over virtio-serial") {
			a.Fatalf("sandbox doctor says\n%s", got)
		}
	})
}
