package supervisor

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/qmptest"
)

// unsavable is a QEMU that has a version and reasons not to be saved, and refuses every other command.
type unsavable struct {
	major, minor, micro int
	blocked             []string
}

// monitorOf is a client of that QEMU.
func monitorOf(t *testing.T, q unsavable) *qmp.Client {
	t.Helper()
	client := qmptest.Start(t, qmp.Options{}, func(m *qmptest.Monitor) {
		m.Handshake(qmptest.GreetingOf(q.major, q.minor, q.micro))
		m.Serve(func(c qmptest.Command) (string, error) {
			if c.Execute != "query-migrate" {
				return "", errors.New("asked for " + c.Execute)
			}
			result, err := json.Marshal(map[string]any{"blocked-reasons": q.blocked})
			return string(result), err
		})
	})
	if err := client.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestSaveIsRefusedBeforeAnythingIsMade(t *testing.T) {
	for name, tt := range map[string]struct {
		qemu unsavable
		want []string
	}{
		"an old QEMU": {
			unsavable{7, 2, 22, nil},
			[]string{"need QEMU 9.0 or newer", "QEMU 7.2.22", "install", "restart a]"},
		},
		"the last that is too old": {unsavable{8, 2, 0, nil}, []string{"QEMU 8.2.0"}},
		"a virtiofsd that cannot be saved": {
			unsavable{10, 0, 2, []string{"State blocked by non-migratable device '0000:00:04.0/vhost-user-fs'"}},
			[]string{"cannot save the sandbox a", "'0000:00:04.0/vhost-user-fs'", "virtiofsd 1.13 or newer", "restart a]"},
		},
		"several reasons": {unsavable{10, 0, 2, []string{"one reason", "another"}}, []string{"cannot save the sandbox a now: one reason; another"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := create(t)
			v.monitor, v.state.Status = monitorOf(t, tt.qemu), machine.StatusRunning
			_, err := v.save(t.Context(), api.SaveRequest{Tag: "tag"})
			if err == nil {
				t.Fatal("it was saved")
			}
			for _, want := range tt.want {
				if !strings.Contains(fmt.Sprint(err, remedy.Of(err)), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			if _, err := os.Lstat(v.s.Files().Snapshots()); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("there is a directory of snapshots: %v", err)
			}
		})
	}
}

func TestHalfOfASnapshotIsNeitherShownNorKept(t *testing.T) {
	s := create(t).s
	snap := saveTest(t, s, "good")
	for _, name := range []string{durable.HiddenName(durable.DraftPrefix, "half"), durable.HiddenName(durable.RemovedPrefix, "gone")} {
		if err := os.Mkdir(filepath.Join(s.Files().Snapshots(), name), 0o700); err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(s.Files().Snapshots(), name, snapshot.MemoryFile), "half of it")
	}
	if all, err := s.Snapshots(); err != nil || len(all) != 1 || all[0].Tag != "good" {
		t.Errorf("shown: %+v, %v", all, err)
	}
	testSupervisor(s).sweepLeftovers()
	entries, err := os.ReadDir(s.Files().Snapshots())
	if err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := s.VerifySnapshot(t.Context(), snap); err != nil {
		t.Error(err)
	}
}
