package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/qmp"
)

// unsavable is a QEMU that has a version and reasons not to be saved, and refuses every other command.
type unsavable struct {
	version string // as JSON
	blocked []string
}

func (q unsavable) Greeting() (g qmp.Greeting) {
	_ = json.Unmarshal([]byte(q.version), &g.Version.QEMU)
	return g
}

func (q unsavable) RunContext(_ context.Context, command []byte) ([]byte, error) {
	var asked struct {
		Execute string `json:"execute"`
		ID      any    `json:"id"`
	}
	if err := json.Unmarshal(command, &asked); err != nil {
		return nil, err
	}
	if asked.Execute != "query-migrate" {
		return nil, errors.New("asked for " + asked.Execute)
	}
	return json.Marshal(map[string]any{"return": map[string]any{"blocked-reasons": q.blocked}, "id": asked.ID})
}

func (unsavable) Events(context.Context) (<-chan qmp.Event, error) { return make(chan qmp.Event), nil }

// monitorOf is a client of that QEMU.
func monitorOf(t *testing.T, q unsavable) *qmp.Client {
	t.Helper()
	ours, theirs := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- qmp.Serve(t.Context(), theirs, q, qmp.ServeOptions{}) }()
	client := qmp.NewClient(ours, qmp.Options{})
	t.Cleanup(func() {
		client.Close()
		<-ended
	})
	if err := client.Handshake(t.Context()); err != nil {
		t.Fatal(err)
	}
	return client
}

func TestSaveIsRefusedBeforeAnythingIsMade(t *testing.T) {
	const newest = `{"major": 10, "minor": 0, "micro": 2}`
	for name, tt := range map[string]struct {
		qemu unsavable
		want []string
	}{
		"an old QEMU": {
			unsavable{`{"major": 7, "minor": 2, "micro": 22}`, nil},
			[]string{"need QEMU 9.0 or newer", "QEMU 7.2.22", "install", "sandbox restart a"},
		},
		"the last that is too old": {unsavable{`{"major": 8, "minor": 2, "micro": 0}`, nil}, []string{"QEMU 8.2.0"}},
		"a virtiofsd that cannot be saved": {
			unsavable{newest, []string{"State blocked by non-migratable device '0000:00:04.0/vhost-user-fs'"}},
			[]string{"cannot save the sandbox a", "'0000:00:04.0/vhost-user-fs'", "virtiofsd 1.13 or newer", "sandbox restart a"},
		},
		"several reasons": {unsavable{newest, []string{"one reason", "another"}}, []string{"cannot save the sandbox a now: one reason; another"}},
	} {
		t.Run(name, func(t *testing.T) {
			v := create(t)
			v.monitor, v.state.Status = monitorOf(t, tt.qemu), machine.StatusRunning
			_, err := v.save(t.Context(), api.SaveRequest{Tag: "tag"})
			if err == nil {
				t.Fatal("it was saved")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
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
