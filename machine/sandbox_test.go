package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/durable"
	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
)

func testHost(t *testing.T) *Host {
	t.Helper()
	root := t.TempDir()
	host, err := OpenHost(layout.Dirs{Data: root + "/data", State: root + "/state", Runtime: root + "/run", Cache: root + "/cache"})
	if err != nil {
		t.Fatal(err)
	}
	return host
}

func testConfig(name string) Config {
	return Config{
		Name: name,
		Hardware: Hardware{
			Image: image.Ref{Name: "test", Digest: strings.Repeat("0", 64)}, MemoryMiB: 512, CPUs: 1,
			Network: network.ModeUser, Transport: agent.TransportAuto,
		},
		Life: Life{ReadyTimeout: time.Minute},
	}
}

func create(t *testing.T, h *Host, name string) *Sandbox {
	t.Helper()
	s, err := h.Create(testConfig(name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCreateKeepsEverythingPrivate(t *testing.T) {
	s := create(t, testHost(t), "a")
	err := filepath.WalkDir(s.Files().Dir(), func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v: others can read it", path, info.Mode().Perm())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if st := s.State(); st.Status != StatusCreated {
		t.Errorf("status %s, want created", st.Status)
	}
}

func TestTakenNameIsRefusedOnceEvenInARace(t *testing.T) {
	h := testHost(t)
	var wg sync.WaitGroup
	results := make([]error, 8)
	for i := range results {
		wg.Go(func() { _, results[i] = h.Create(testConfig("same")) })
	}
	wg.Wait()
	made := 0
	for _, err := range results {
		if err == nil {
			made++
		} else if !strings.Contains(err.Error(), "exists already") {
			t.Errorf("unclear error: %v", err)
		}
	}
	if made != 1 {
		t.Fatalf("%d sandboxes of one name were made", made)
	}
	if _, err := h.mustGet(t, "same").Config(); err != nil {
		t.Errorf("the losers damaged the winner: %v", err)
	}
}

func (h *Host) mustGet(t *testing.T, name string) *Sandbox {
	t.Helper()
	s, err := h.Get(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStateTellsCrashedFromRunning(t *testing.T) {
	s := create(t, testHost(t), "a")
	if err := durable.WriteJSON(s.Files().Path(layout.StateFile), State{Status: StatusRunning, Supervisor: 12345}); err != nil {
		t.Fatal(err)
	}
	st := s.State()
	if st.Status != StatusCrashed || !strings.Contains(st.Reason, "12345") {
		t.Errorf("without a supervisor: %s (%s), want crashed with the supervisor's pid", st.Status, st.Reason)
	}
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if st := s.State(); st.Status != StatusRunning {
		t.Errorf("with a supervisor: %s, want running", st.Status)
	}
}

func TestBrokenSandboxIsListedAndRemoved(t *testing.T) {
	h := testHost(t)
	halfState := func(s *Sandbox) error {
		return os.WriteFile(s.Files().Path(layout.StateFile), []byte(`{"status": "run`), 0o600)
	}
	for name, tt := range map[string]struct {
		status Status
		damage func(*Sandbox) error
	}{
		// A start needs no old state and writes it anew.
		"half-state": {StatusCrashed, halfState},
		"no-lock": {StatusCrashed, func(s *Sandbox) error {
			return errors.Join(os.Remove(s.Files().Path(layout.LockFile)), os.Remove(s.Files().Path(layout.StateFile)))
		}},
		"empty-state": {StatusCrashed, func(s *Sandbox) error { return os.Truncate(s.Files().Path(layout.StateFile), 0) }},
		"no-config":   {StatusBroken, func(s *Sandbox) error { return os.Remove(s.Files().Path(layout.ConfigFile)) }},
		"newer": {StatusBroken, func(s *Sandbox) error {
			return os.WriteFile(s.Files().Path(layout.ConfigFile), []byte(`{"colour": "red"}`), 0o600)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := create(t, h, name)
			if err := tt.damage(s); err != nil {
				t.Fatal(err)
			}
			all, err := h.List()
			if err != nil || len(all) != 1 {
				t.Fatalf("list: %d sandboxes, %v", len(all), err)
			}
			if st := all[0].State(); st.Status != tt.status || st.Reason == "" {
				t.Errorf("status %s (%s), want %s with a reason", st.Status, st.Reason, tt.status)
			}
			if err := s.Remove(context.Background(), false); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Get(name); err == nil {
				t.Error("it is still there")
			}
		})
	}
}

func TestRemoveRefusesWhatRuns(t *testing.T) {
	s := create(t, testHost(t), "a")
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	err = s.Remove(context.Background(), false)
	if err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), "[stop a remove-now a]") {
		t.Fatalf("error %v, want the remedy", err)
	}
	if _, err := s.Config(); err != nil {
		t.Errorf("it was damaged: %v", err)
	}
}

func TestRemoveCopesWithDirectoriesThatCannotBeEntered(t *testing.T) {
	s := create(t, testHost(t), "a")
	closed := filepath.Join(s.Files().Home(), "x", "y")
	if err := os.MkdirAll(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{closed, filepath.Dir(closed)} {
		if err := os.Chmod(dir, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Remove(context.Background(), false); err != nil {
		t.Fatal(err)
	}
}

func TestStartRefusesWhatRuns(t *testing.T) {
	s := create(t, testHost(t), "a")
	fakeSupervisor(t, s, sleeper, nil)
	if _, err := s.Start(context.Background(), StartOptions{Until: StageAgent}); err == nil || !strings.Contains(err.Error(), "already") {
		t.Fatalf("error %v, want one that says it runs already", err)
	}
}

func TestLockOfARemovedFileIsNotTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := flock.Try(path, true)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := flock.Try(path, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("locking a removed file: %v, want that it does not exist", err)
	}
	second, err := flock.Try(path, true)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

func TestConfigHoldsNoSurprises(t *testing.T) {
	bad := []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.Name = "No" }, "lower-case"},
		{func(c *Config) { c.MemoryMiB = 16 }, "[set memory "},
		{func(c *Config) { c.CPUs = 0 }, "[set cpus "},
		{func(c *Config) { c.CPUs = 1000 }, "[set cpus "},
		{func(c *Config) { c.Network = network.ModeNone; c.SSHPort = 2222 }, "[no-ports]"},
		{func(c *Config) { c.Network = network.ModePublic; c.Allow = []string{"example.com"} }, "[make-with net allowlist]"},
		{func(c *Config) { c.Network = network.ModePublic; c.Allow = []string{"localhost:5432"} }, "[make-with allow-host-port PORT]"},
		{func(c *Config) { c.Network = network.ModePublic; c.Denied = []string{"example.com"} }, "[make-with net allowlist]"},
		{func(c *Config) { c.Network = network.ModeNone; c.Allow = []string{"10.1.0.0/16"} }, "[make-with net allowlist]"},
		{func(c *Config) { c.Network = network.ModeUser; c.Denied = []string{"10.1.0.0/16"} }, "[make-with net allowlist]"},
		{func(c *Config) { c.Network = network.ModeAsk; c.Allowed = []string{"example.com:http"} }, `"http" is no port`},
		{func(c *Config) { c.Network = network.ModeAllowlist; c.Allow = []string{"example.com:http"} }, `"http" is no port`},
		{func(c *Config) {
			c.Network = network.ModeAllowlist
			c.Allow = slices.Repeat([]string{"example.com"}, 257)
		}, "257 rules are too many"},
		{func(c *Config) { c.Network, c.Secrets = network.ModeAsk, []string{"KEY"} }, "KEY"},
		{func(c *Config) {
			c.Network, c.Secrets = network.ModePublic, []string{"KEY@a.example", "KEY=env:OTHER@b.example"}
		}, "two secrets are to be the variable KEY"},
		{func(c *Config) { c.Network, c.Secrets = network.ModeUser, []string{"KEY@a.example"} }, "[set net public]"},
		{func(c *Config) {
			c.Network = network.ModePublic
			for i := range 65 {
				c.Secrets = append(c.Secrets, fmt.Sprintf("KEY%d@a.example", i))
			}
		}, "65 secrets are too many"},
		{func(c *Config) { c.Transport = "pigeon" }, "pigeon"},
		{func(c *Config) { c.ReadyTimeout = 0 }, "[set timeout "},
		{func(c *Config) { c.ReadyTimeout = -time.Second }, "[set timeout "},
	}
	for _, tt := range bad {
		c := testConfig("a")
		tt.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), tt.want) {
			t.Errorf("error %v, want one that names %s", err, tt.want)
		}
	}
	c := testConfig("a")
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	data, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back Config
	if err := json.Unmarshal(data, &back); err != nil || back.Name != c.Name {
		t.Errorf("a configuration does not survive its file: %v", err)
	}
}

func TestSupervisorGetsNoSecrets(t *testing.T) {
	got := supervisorEnv([]string{"PATH=/bin", "ANTHROPIC_API_KEY=x", "HOME=/h", "XDG_STATE_HOME=/s", "SSL_CERT_FILE=/ca", "PATHS=no"})
	if want := "PATH=/bin HOME=/h XDG_STATE_HOME=/s SSL_CERT_FILE=/ca"; strings.Join(got, " ") != want {
		t.Errorf("environment %q, want %q", got, want)
	}
}

func TestErrorsTellWhatIsThereAndWhatIsNot(t *testing.T) {
	h := testHost(t)
	s := create(t, h, "a")
	lock, err := s.Files().Lock()
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	_, noSandbox := h.Get("b")
	_, noSnapshot := s.Snapshot("one")
	_, taken := h.Create(testConfig("a"))
	_, busy := s.Start(t.Context(), StartOptions{})
	for err, want := range map[error]error{
		noSandbox: fs.ErrNotExist, noSnapshot: fs.ErrNotExist, s.RemoveSnapshot("one"): fs.ErrNotExist, taken: fs.ErrExist,
		busy: api.ErrBusy, s.CheckRunning(): api.ErrNotRunning,
	} {
		if !errors.Is(err, want) {
			t.Errorf("%v is not %v", err, want)
		}
	}
}
