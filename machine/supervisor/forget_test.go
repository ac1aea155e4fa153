package supervisor

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A guest that knows half of as many files as its file server can have open is to forget those that nobody uses.
func TestGuestForgetsFilesBeforeThereAreTooMany(t *testing.T) {
	l := newLife(t, func(c *machine.Config) {
		c.Shares = []virtiofs.Share{{Source: t.TempDir(), Target: "/srv/x"}}
	})
	forgets := make(chan struct{}, 1)
	l.guest.agent.Guest.Forgets = func() {
		select {
		case forgets <- struct{}{}:
		default:
		}
	}
	l.begin()
	l.await(machine.StageAgent)
	server := l.v.currentServers()[0]
	open, _, err := server.OpenFiles()
	if err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(open) + 1, Max: uint64(open) + 1}
	pid := server.PID()
	inner, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(inner)) != "" {
		if _, err := fmt.Sscan(string(inner), &pid); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	<-forgets
	// What is still open after that is in use, and no reason to go on.
	left := map[int]int{server.PID(): open}
	if many, _ := l.v.manyOpen(left); len(many) != 0 {
		t.Error("the guest is to forget what it uses")
	}
	if many, _ := l.v.manyOpen(map[int]int{}); len(many) != 1 {
		t.Errorf("%d of the servers have many files open, want 1", len(many))
	}
}
