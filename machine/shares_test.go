package machine

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/virtiofs"
)

// A host that takes its time to free a guest's memory must not make a crash of
// an orderly end.
func TestFileServerThatWasLeftIsBelieved(t *testing.T) {
	for name, tt := range map[string]struct {
		end  string
		left bool
	}{
		"left by the guest": {"exit 0", true},
		"killed":            {"exec sleep 600", false},
		"failed":            {"echo broken >&2; exit 1", false},
	} {
		t.Run(name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "virtiofsd")
			writeFile(t, program, "#!/bin/sh\necho '[INFO virtiofsd] Waiting for vhost-user socket connection...' >&2\n"+tt.end+"\n")
			if err := os.Chmod(program, 0o700); err != nil {
				t.Fatal(err)
			}
			server, err := virtiofs.Daemon{Path: program}.Start(t.Context(), virtiofs.ServerConfig{
				Source: t.TempDir(), Socket: filepath.Join(t.TempDir(), "fs.sock"), Log: io.Discard,
				GuestUID: 1000, GuestGID: 1000, HostUID: os.Geteuid(), HostGID: os.Getegid(),
			})
			if err != nil {
				t.Fatal(err)
			}
			if name == "killed" {
				if err := unix.Kill(server.PID(), unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
			<-server.Done()
			if got := graceAfter(server); (got == leaveGrace) != tt.left {
				t.Errorf("QEMU may take %v to follow (%v)", got, server.Err())
			}
		})
	}
}
