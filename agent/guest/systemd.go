//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// systemdSocket is where systemd answers root without a D-Bus daemon. It
	// exists once systemd handles requests and signals.
	systemdSocket = "/run/systemd/private"

	// systemdPowerOff is SIGRTMIN+4, which systemd(1) documents as "power the
	// machine off". It needs no program to be started, and no D-Bus.
	systemdPowerOff = unix.Signal(34 + 4)

	// systemdPatience bounds how long systemd is asked for its state: longer than
	// any start that somebody would wait for, and shorter than for ever, because
	// a process 1 that has crashed does not answer either. systemctl's own
	// questions end after 25 seconds.
	systemdPatience = 30 * time.Minute

	// systemdPause lies between two questions.
	systemdPause = time.Second

	// userManagerTimeout bounds the wait for a user's manager. It takes a
	// second in an emulated guest.
	userManagerTimeout = 30 * time.Second
)

// systemState waits until systemd, which is there, has finished its start and
// returns its word for the result, with the units that failed. A process 1 that
// is too busy to answer systemctl in time is asked again: that says nothing
// about the image.
func systemState(ctx context.Context, systemctl systemctlFunc) (state string, failed []string, err error) {
	limited, cancel := context.WithTimeout(ctx, systemdPatience)
	defer cancel()
	for {
		state, failed, again, err := askSystemd(limited, systemctl)
		if !again {
			return state, failed, err
		}
		select {
		case <-time.After(systemdPause):
		case <-limited.Done():
			if ctx.Err() != nil {
				return "", nil, ctx.Err()
			}
			return state, nil, fmt.Errorf("%w (the last answer of %v)", err, systemdPatience)
		}
	}
}

// askSystemd asks once. If systemd had no answer, it may have one to another
// question, and err has systemctl's words.
func askSystemd(ctx context.Context, systemctl systemctlFunc) (state string, failed []string, again bool, err error) {
	// The exit status only repeats what is printed.
	out, err := systemctl(ctx, "is-system-running", "--wait")
	state = strings.TrimSpace(out)
	switch state {
	case "running":
		return state, nil, false, nil
	case "degraded":
		out, err = systemctl(ctx, "list-units", "--failed", "--plain", "--no-legend", "--no-pager")
		return state, failedUnits(out), err != nil, err
	// The first two are systemctl's own for a systemd that says nothing, the
	// others what comes if it was not waited for.
	case "", "unknown", "initializing", "starting":
		return state, nil, !errors.Is(err, exec.ErrNotFound), fmt.Errorf("systemd does not tell its state: systemctl says %q: %w", state, err)
	default:
		return state, nil, false, fmt.Errorf("systemd did not finish its start: its state is %q", state)
	}
}

// instructSystemd writes settings for units of systemd, which has not started
// yet. The first keeps the agent alive: it and all commands are in the scope of
// process 1, which systemd would end with everything in it as soon as one
// process there is killed for memory. The others are for the user's manager,
// about which it would ask a logind, which sandboxes do without: the runtime
// directory is there already, and must not be removed under the commands that
// use it.
func instructSystemd(root string, uid int) error {
	for unit, text := range map[string]string{
		"init.scope": "[Scope]\nOOMPolicy=continue\n",
		// A service must have something to do; it need not exist.
		fmt.Sprintf("user-runtime-dir@%d.service", uid): "[Service]\nExecStart=\nExecStart=-/bin/true\nExecStop=\n",
		fmt.Sprintf("user@%d.service", uid):             fmt.Sprintf("[Service]\nPAMName=\nEnvironment=XDG_RUNTIME_DIR=/run/user/%d\n", uid),
	} {
		dropIn := filepath.Join(root, "/run/systemd/system", unit+".d/sandbox.conf")
		err := os.MkdirAll(filepath.Dir(dropIn), 0o755)
		if err == nil {
			err = replaceFile(dropIn, text, 0o644)
		}
		if err != nil {
			return fmt.Errorf("cannot instruct systemd about %s: %w", unit, err)
		}
	}
	return nil
}

// startUserManager starts the user's own systemd, which a login would start
// where there is a logind: for systemctl --user and systemd-run --user.
func startUserManager(ctx context.Context, uid int) error {
	ctx, cancel := context.WithTimeout(ctx, userManagerTimeout)
	defer cancel()
	_, err := systemctl(ctx, "start", fmt.Sprintf("user@%d.service", uid))
	return err
}

// failedUnits takes the unit names from the lines of systemctl list-units.
func failedUnits(lines string) []string {
	var units []string
	for line := range strings.Lines(lines) {
		if fields := strings.Fields(line); len(fields) > 0 {
			units = append(units, fields[0])
		}
	}
	return units
}

// systemctlFunc runs systemctl and returns what it prints. Its error has what
// it complains of.
type systemctlFunc func(ctx context.Context, args ...string) (string, error)

func systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.Env = append(cmd.Environ(), "LANG=C.UTF-8") // its words are compared
	out, err := cmd.Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(failed.Stderr)))
	}
	return string(out), err
}
