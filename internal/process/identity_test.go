package process

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestIdentityIsProvedBeforeASignal(t *testing.T) {
	cmd := startProgram(t, sleeper)
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*Identity)
		want   error
	}{
		"the same":          {func(*Identity) {}, nil},
		"pid reused":        {func(id *Identity) { id.StartTime-- }, ErrStranger},
		"host rebooted":     {func(id *Identity) { id.BootID = "a-boot-before" }, ErrGone},
		"no such process":   {func(id *Identity) { id.PID = 1 << 30 }, ErrGone},
		"somebody else's":   {func(id *Identity) { id.PID = 1 }, ErrStranger},
		"written by nobody": {func(id *Identity) { *id = Identity{} }, ErrGone},
	} {
		t.Run(name, func(t *testing.T) {
			id := id
			tt.change(&id)
			p, err := Open(id)
			if !errors.Is(err, tt.want) {
				t.Fatalf("error %v, want %v", err, tt.want)
			}
			if err == nil {
				p.Close()
			}
		})
	}
}

func TestStartTimeOfAProgramWithAnOddName(t *testing.T) {
	fields := "S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 1 0 98765 0 25 0"
	got, err := startTime([]byte("42 (a) b (c ) " + fields))
	if err != nil || got != 98765 {
		t.Errorf("%d, %v, want 98765", got, err)
	}
	for _, bad := range []string{"", "42 (x)", "42 (x) S 1", "nothing"} {
		if _, err := startTime([]byte(bad)); err == nil {
			t.Errorf("%q has a start time", bad)
		}
	}
	p, err := parseStat([]byte("42 (a) b (c ) " + fields))
	if err != nil || p.Name != "a) b (c " || p.CPUSeconds != 2 || p.RSSBytes != int64(25*os.Getpagesize()) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestWaitForAProcessEndsWithItOrWithTheContext(t *testing.T) {
	cmd := startProgram(t, sleeper)
	id, err := Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(id)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if p.Wait(ctx, time.Minute) {
		t.Error("it has ended, they say")
	}
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if !p.Wait(context.Background(), time.Minute) {
		t.Error("its end was not seen")
	}
	_ = cmd.Wait()
	if err := p.Signal(unix.SIGKILL); err != nil {
		t.Errorf("signalling what has ended: %v", err)
	}
	if _, err := Open(id); !errors.Is(err, ErrGone) {
		t.Errorf("opening what has ended: %v", err)
	}
}

const sleeper = "echo; exec sleep 600"

// startProgram runs a shell script that says when it is ready.
func startProgram(t *testing.T, script string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", script)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	return cmd
}
