package smoke

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
)

// builtin are the checks of every boot, in an order in which the first failure
// explains those that follow.
func builtin() []Check {
	return []Check{
		{"agent", checkAgent},
		{"clock", checkClock},
		{"entropy", checkEntropy},
		{"home", func(ctx context.Context, g *guest) (string, error) {
			return "", bothWays(ctx, g, g.home, g.user.Home)
		}},
		{"share", func(ctx context.Context, g *guest) (string, error) {
			return "", bothWays(ctx, g, g.share, g.shareInside)
		}},
		{"dhcp", checkDHCP},
		{"dns", checkDNS},
		{"ssh", checkSSH},
		{"units", checkUnits},
	}
}

// checkAgent proves that commands run as the image's user, and that their
// input, output and exit status pass through exactly.
func checkAgent(ctx context.Context, g *guest) (string, error) {
	const sent, status = "to and fro\x00", 7
	cmd := g.client.Command(ctx, "sh", "-c", fmt.Sprintf("cat; exit %d", status))
	cmd.Stdin = strings.NewReader(sent)
	got, err := cmd.Output()
	exit, ended := errors.AsType[*agent.ExitError](err)
	switch {
	case err == nil:
		return "", fmt.Errorf("a command that exits with %d was reported to have succeeded", status)
	case !ended:
		return "", err
	case exit.Code != status:
		return "", fmt.Errorf("a command that exits with %d was reported to have exited with %d", status, exit.Code)
	case string(got) != sent:
		return "", fmt.Errorf("cat gave back %q instead of %q", got, sent)
	}
	uid, err := g.output(ctx, "id", "-u")
	if err != nil {
		return "", err
	}
	if uid = strings.TrimSpace(uid); uid != strconv.Itoa(g.user.UID) {
		return "", fmt.Errorf("commands run with uid %s, and the image's user %s has %d", uid, g.user.Name, g.user.UID)
	}
	return "", nil
}

// clockTolerance is how far the guest's clock may be off: certificates, builds
// and tokens can live with seconds. The host sends the time once, and a busy
// machine may take a moment to deliver it.
const clockTolerance = 5 * time.Second

func checkClock(ctx context.Context, g *guest) (string, error) {
	before := time.Now()
	out, err := g.output(ctx, "date", "+%s")
	after := time.Now()
	if err != nil {
		return "", err
	}
	seconds, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return "", fmt.Errorf("date gave %q instead of a number of seconds", out)
	}
	return "", compareClocks(time.Unix(seconds, 0), before, after)
}

// compareClocks judges a guest's time, in whole seconds, that was read between
// two moments of the host.
func compareClocks(guest, before, after time.Time) error {
	switch {
	case guest.Add(time.Second).Before(before.Add(-clockTolerance)):
		return fmt.Errorf("the guest's clock is %v behind the host's", before.Sub(guest).Round(time.Second))
	case guest.After(after.Add(clockTolerance)):
		return fmt.Errorf("the guest's clock is %v ahead of the host's", guest.Sub(after).Round(time.Second))
	}
	return nil
}

// checkEntropy reads from the device that blocks until the kernel's generator
// has been seeded.
func checkEntropy(ctx context.Context, g *guest) (string, error) {
	const want = 32
	out, err := g.output(ctx, "head", "-c", strconv.Itoa(want), "/dev/random")
	if ctx.Err() != nil {
		return "", fmt.Errorf("/dev/random gives nothing, so the guest has no entropy: %w", context.Cause(ctx))
	}
	if err != nil {
		return "", err
	}
	if len(out) != want || strings.Count(out, out[:1]) == want {
		return "", fmt.Errorf("/dev/random gave %q, which is not %d random bytes", out, want)
	}
	return "", nil
}

// bothWays proves that host and guest read what the other wrote to a directory
// that they share, and that what the guest writes belongs to the directory's
// owner on the host.
func bothWays(ctx context.Context, g *guest, outside, inside string) error {
	const fromGuest, fromHost = ".smoke-from-guest", ".smoke-from-host"
	text := rand.Text()
	if _, err := g.output(ctx, "sh", "-c", `printf %s "$1" >"$0"`, path.Join(inside, fromGuest), text); err != nil {
		return fmt.Errorf("the guest cannot write to %s: %w", inside, err)
	}
	// The guest may be anybody's: what it puts there is no link to elsewhere for us.
	root, err := os.OpenRoot(outside)
	if err != nil {
		return err
	}
	defer root.Close()
	got, err := readPlain(root, fromGuest, len(text)+1)
	if err != nil {
		return fmt.Errorf("what the guest wrote to %s is not on the host: %w", inside, err)
	}
	if string(got) != text {
		return fmt.Errorf("the guest wrote %q to %s, and the host reads %q", text, inside, got)
	}
	if err := sameOwner(outside, filepath.Join(outside, fromGuest)); err != nil {
		return err
	}
	if err := writePlain(root, fromHost, text); err != nil {
		return err
	}
	back, err := g.output(ctx, "cat", path.Join(inside, fromHost))
	if err != nil {
		return fmt.Errorf("the guest cannot read what the host wrote to %s: %w", inside, err)
	}
	if back != text {
		return fmt.Errorf("the host wrote %q to %s, and the guest reads %q", text, inside, back)
	}
	return nil
}

// readPlain reads at most so many bytes of a plain file.
func readPlain(root *os.Root, name string, most int) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no plain file", name))
	}
	return io.ReadAll(io.LimitReader(f, int64(most)))
}

// writePlain makes a plain file anew.
func writePlain(root *os.Root, name, text string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func sameOwner(dir, file string) error {
	var of [2]unix.Stat_t
	for i, path := range []string{dir, file} {
		if err := unix.Lstat(path, &of[i]); err != nil {
			return fmt.Errorf("asking for the owner of %s: %w", path, err)
		}
	}
	if of[0].Uid != of[1].Uid {
		return fmt.Errorf("what the guest writes belongs to uid %d on the host, and the directory to %d", of[1].Uid, of[0].Uid)
	}
	return nil
}

// checkDHCP asks for the address that the agent waits for before it announces
// its readiness.
func checkDHCP(ctx context.Context, g *guest) (string, error) {
	status, err := g.client.Status(ctx)
	if err != nil {
		return "", err
	}
	n := status.Network
	if !n.Up {
		return "", fmt.Errorf("the guest has no network address: %s", cmp.Or(n.Problem, "it waits for an answer of the DHCP server"))
	}
	return fmt.Sprintf("%s has %s", n.Interface, n.Address), nil
}

// checkUnits asks systemd, as root, because its socket needs no bus.
func checkUnits(ctx context.Context, g *guest) (string, error) {
	if !g.systemd {
		return "", skip("the image's init is not systemd")
	}
	failed, err := g.systemctl(ctx, "list-units", "--failed", "--plain", "--no-legend")
	if err != nil {
		return "", err
	}
	var units []string
	for line := range strings.Lines(failed) {
		if fields := strings.Fields(line); len(fields) > 0 {
			units = append(units, fields[0])
		}
	}
	if len(units) == 0 {
		return "", nil
	}
	// Its exit status only repeats that they have failed.
	status, _ := g.systemctl(ctx, append([]string{"status"}, units...)...)
	return status, fmt.Errorf("failed: %s", strings.Join(units, ", "))
}

func (g *guest) systemctl(ctx context.Context, args ...string) (string, error) {
	cmd := g.client.Command(ctx, append([]string{"systemctl", "--no-pager"}, args...)...)
	cmd.User = "root"
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("systemctl %s: %w", args[0], err)
	}
	return string(out), err
}
