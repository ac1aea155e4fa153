package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/machine/workspace"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// pluggable lets the guest give back its devices.
func pluggable(l *life) {
	l.guest.answer = func(execute string) (string, error, bool) {
		if execute == "device_del" {
			for port := 1; port <= qemu.MaxPorts; port++ {
				l.guest.say(fmt.Sprintf(`{"event": "DEVICE_DELETED", "data": {"device": %q, "path": "/x"}, "timestamp": {"seconds": 1, "microseconds": 0}}`, qemu.Share{Port: port}.DeviceID()))
			}
		}
		return "", nil, false
	}
}

// admitted is a share of a directory that there is.
func admitted(t *testing.T, l *life, target string) virtiofs.Share {
	t.Helper()
	share, err := virtiofs.Share{Source: t.TempDir(), Target: target}.Admit(l.v.host.ShareRules())
	if err != nil {
		t.Fatal(err)
	}
	return share
}

// has compares what the guest has, what the configuration says and what is served with places in the guest.
func (l *life) has(want ...string) {
	l.t.Helper()
	c, err := l.s.Config()
	if err != nil {
		l.t.Fatal(err)
	}
	var config, served []string
	for _, share := range c.Shares {
		config = append(config, share.Target)
	}
	for _, server := range l.v.currentServers() {
		if !server.export.own {
			served = append(served, server.export.Target)
		}
	}
	if !slices.Equal(config, want) || !slices.Equal(served, want) || len(l.s.State().Shares) != len(want)+1 || len(l.v.needs.Places) != len(want) {
		l.t.Errorf("the configuration has %q, served are %q, shown %+v, and a snapshot needs %+v; want %q", config, served, l.s.State().Shares, l.v.needs.Places, want)
	}
}

func TestShareComesAndGoesWhileTheGuestRuns(t *testing.T) {
	l := newLife(t, nil)
	pluggable(l)
	l.begin()
	l.await(machine.StageAgent)
	share := admitted(t, l, "x")
	for n := range 2 {
		mounted, err := l.calls.Mount(t.Context(), api.MountRequest{Share: share})
		if err != nil {
			t.Fatal(err)
		}
		// A tag never comes again, and a slot does.
		want := agent.Mount{Tag: fmt.Sprintf("share%d", n), Target: "/home/agent/x"}
		got := slices.Clone(l.guest.agent.Guest.Mounted)
		if len(got) != 1 || !strings.Contains(got[0].Unreadable, "**/.env\n") {
			t.Fatalf("the guest has mounted %+v, and is to know what it cannot read", got)
		}
		got[0].Unreadable = ""
		if mounted.Share.Target != want.Target || !slices.Equal(got, []agent.Mount{want}) {
			t.Errorf("the share is %+v, the guest has mounted %+v, want %+v", mounted.Share, got, want)
		}
		if got := l.v.needs.Places; !slices.Equal(got, []snapshot.Place{{Tag: want.Tag, Port: 1}}) {
			t.Errorf("the places are %+v", got)
		}
		l.has("/home/agent/x")
		server := l.v.currentServers()[1]
		if err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "x"}); err != nil {
			t.Fatal(err)
		}
		<-server.Done()
		l.has()
	}
	// The end of a file server that was not needed any more was no death.
	if st := l.s.State(); st.Status != machine.StatusRunning {
		t.Errorf("the state is %+v", st)
	}
}

// What the guest changes in a copy-on-write share stays on its disk when the share goes. What is known of it is for that
// directory only, and there again with it.
func TestCopyOnWriteShareComesAndGoesWhileTheGuestRuns(t *testing.T) {
	l := newLife(t, func(c *machine.Config) { c.DiskMiB = 64 })
	pluggable(l)
	l.guest.agent.Guest.State.Disk = "/dev/vdb"
	l.begin()
	l.await(machine.StageAgent)
	one, two := admitted(t, l, "x"), admitted(t, l, "x")
	one.CopyOnWrite, one.ReadOnly, two.CopyOnWrite, two.ReadOnly = true, true, true, true
	since := func() (now, later time.Time) {
		t.Helper()
		var records map[string]workspace.Record
		if err := durable.ReadJSON(l.s.Files().Path(layout.WorkspaceFile), &records); err != nil {
			t.Fatal(err)
		}
		return records["/home/agent/x"].Since, records["/home/agent/x\n"+one.Source].Since
	}
	var origins []string
	mount := func(share virtiofs.Share) {
		t.Helper()
		if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: share}); err != nil {
			t.Fatal(err)
		}
		m := l.guest.agent.Guest.Mounted[0]
		if !m.CopyOnWrite || !m.ReadOnly || m.Origin == "" || strings.Contains(m.Origin, "/") {
			t.Errorf("the guest has mounted %+v", m)
		}
		origins = append(origins, m.Origin)
	}
	unmount := func() {
		t.Helper()
		if err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "x"}); err != nil {
			t.Fatal(err)
		}
		l.has()
	}
	mount(one)
	first, _ := since()
	unmount()
	mount(two)
	other, aside := since()
	if first.IsZero() || !other.After(first) || !aside.Equal(first) {
		t.Errorf("the first has changes since %v, the other since %v, and the first, which is aside, since %v", first, other, aside)
	}
	unmount()
	mount(one)
	if again, _ := since(); !again.Equal(first) {
		t.Errorf("it has changes since %v, and was first mounted at %v", again, first)
	}
	if origins[0] == origins[1] || origins[0] != origins[2] {
		t.Errorf("the guest takes them for %q", origins)
	}
	lock, err := l.s.LockWorkspaces()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "x"}); err == nil || !strings.Contains(err.Error(), "applies or discards") {
		t.Errorf("while somebody applies its changes: %v", err)
	}
}

func TestShareThatCannotBeMountedLeavesNothing(t *testing.T) {
	for name, breaks := range map[string]func(l *life){
		"no device": func(l *life) {
			was := l.guest.answer
			l.guest.answer = func(execute string) (string, error, bool) {
				if execute == "device_add" {
					return "", errors.New("no room"), true
				}
				return was(execute)
			}
		},
		"no mount": func(l *life) { l.guest.agent.Guest.MountError = errors.New("its device did not appear") },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLife(t, nil)
			pluggable(l)
			breaks(l)
			l.begin()
			l.await(machine.StageAgent)
			if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: admitted(t, l, "x")}); err == nil {
				t.Error("it was mounted")
			}
			l.has()
			if l.guest.wasAsked("chardev-add") != l.guest.wasAsked("chardev-remove") {
				t.Error("QEMU has a connection more than before")
			}
			if err := l.v.checkPlugged(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestShareInUseStaysUnlessItIsForced(t *testing.T) {
	l := newLife(t, nil)
	pluggable(l)
	l.guest.agent.Guest.Users = agent.Users{Busy: true, Processes: []agent.User{{PID: 7, Command: "vi\x1b[2J", Uses: "open file a"}}}
	l.begin()
	l.await(machine.StageAgent)
	if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: admitted(t, l, "/srv/x")}); err != nil {
		t.Fatal(err)
	}
	err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "/srv/x"})
	if err == nil || !strings.Contains(err.Error(), "process 7 (vi[2J) has its open file a there") {
		t.Errorf("it is unmounted with %v", err)
	}
	l.has("/srv/x")
	if err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "/srv/x", Force: true}); err != nil {
		t.Fatal(err)
	}
	l.has()
}

func TestMountIsRefused(t *testing.T) {
	l := newLife(t, nil)
	pluggable(l)
	l.begin()
	l.await(machine.StageAgent)
	inner, cow := admitted(t, l, "/srv/x/y"), admitted(t, l, "/srv/cow")
	cow.CopyOnWrite, cow.ReadOnly = true, true
	if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: inner}); err != nil {
		t.Fatal(err)
	}
	for want, share := range map[string]virtiofs.Share{
		"has no disk":                     cow,
		"would hide that of":              admitted(t, l, "/srv/x"),
		"have the same place":             admitted(t, l, "/srv/x/y"),
		"hide the guest's own files":      admitted(t, l, "/etc/x"),
		"no such directory: make it":      admitted(t, l, "/srv/x/y/z"),
		"was shared":                      {Source: inner.Source, Target: "/srv/other", Directory: admitted(t, l, "a").Directory},
		"does not exist: correct the pat": {Source: "/nowhere/x", Target: "/srv/other"},
	} {
		if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: share}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want an error with %q", share, err, want)
		}
	}
	for range machine.SpareSlots - 1 {
		if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: admitted(t, l, "/srv/"+strings.Repeat("a", 1+len(l.v.currentServers())))}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := l.calls.Mount(t.Context(), api.MountRequest{Share: admitted(t, l, "/srv/z")}); err == nil || !strings.Contains(err.Error(), "slots for shares of the machine of a are taken") {
		t.Errorf("one too many: %v", err)
	}
	if err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "."}); err == nil || !strings.Contains(err.Error(), "home, which it always has") {
		t.Errorf("the home: %v", err)
	}
	if err := l.calls.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.calls.Unmount(t.Context(), api.UnmountRequest{Target: "/srv/x/y"}); !errors.Is(err, api.ErrNotRunning) {
		t.Errorf("of a paused sandbox: %v", err)
	}
}
