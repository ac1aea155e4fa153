package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// bootstrap runs mmdebstrap.
type bootstrap struct {
	path string
	room *room
	// emulator runs the new system's programs; empty: the kernel can do it
	emulator string
	log      *os.File            // all that it says
	note     func(status string) // its steps, for people to watch
}

// installArgs is mmdebstrap's argv, without argv[0], for a tar stream of the
// whole system on standard output.
func installArgs(in inputs, emulator string) []string {
	args := []string{
		"--mode=root", // of the room
		"--variant=essential",
		"--architectures=" + in.Arch,
		"--components=main",
		"--format=tar",
		// Device nodes cannot be made in a user namespace, and devtmpfs has
		// them.
		"--skip=output/dev,output/mknod",
		// Hardware is no business of the packages.
		"--skip=chroot/mount/sys",
		`--aptopt=APT::Install-Recommends "false"`,
		`--aptopt=Acquire::Languages "none"`,
		// Most files of some packages; dropped has them as well.
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/lintian/*",
		"--include=" + strings.Join(in.Packages, ","),
	}
	hooks := in.Hooks
	if emulator != "" {
		hooks = append([]hook{emulatorHook(emulator)}, hooks...)
		// The check comes before the hook.
		args = append(args, "--skip=check/qemu")
	}
	for _, h := range hooks {
		args = append(args, "--"+h.Stage+"-hook="+h.Script)
	}
	return append(append(args, in.Suite, "-"), in.Sources...)
}

// dateArgs is the argv for asking the archive for its dates, on descriptor 3.
func dateArgs(in inputs) []string {
	const script = `APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get update -o Acquire::IndexTargets::deb::Packages::DefaultEnabled=false -o Acquire::Languages=none >&2
sed -n 's/^Date: //p' "$1"/var/lib/apt/lists/*Release >&3`
	args := []string{
		"--mode=root", "--variant=custom", "--architectures=" + in.Arch, "--components=main",
		"--format=null", "--skip=update,download,check/qemu", "--setup-hook=" + script, in.Suite, os.DevNull,
	}
	return append(args, in.Sources...)
}

// date is the newest date of the archive's signed indices.
func (b bootstrap) date(ctx context.Context, in inputs) (time.Time, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return time.Time{}, err
	}
	defer r.Close()
	quiet := b
	quiet.note = nil // its steps are not those of the installation
	cmd, finish := quiet.command(ctx, dateArgs(in))
	cmd.ExtraFiles = []*os.File{w}
	err = b.room.start(cmd)
	w.Close()
	if err != nil {
		return time.Time{}, fmt.Errorf("starting mmdebstrap: %w", err)
	}
	dates, readErr := io.ReadAll(r)
	if err := finish(cmd.Wait()); err != nil {
		return time.Time{}, err
	}
	if readErr != nil {
		return time.Time{}, readErr
	}
	return newest(string(dates))
}

func newest(dates string) (time.Time, error) {
	var latest time.Time
	for line := range strings.Lines(dates) {
		t, err := time.Parse(time.RFC1123, strings.TrimSpace(line))
		if err != nil {
			return time.Time{}, fmt.Errorf("the archive's date is not one: %w", err)
		}
		if t.After(latest) {
			latest = t
		}
	}
	if latest.IsZero() {
		return time.Time{}, remedy.Add(errors.New("the archive's indices have no date"), remedy.Set, "epoch", "a time in seconds since 1970")
	}
	return latest.UTC(), nil
}

// install streams the new system to consume as a tar archive.
func (b bootstrap) install(ctx context.Context, in inputs, epoch time.Time, consume func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd, finish := b.command(ctx, installArgs(in, b.emulator))
	cmd.Env = append(cmd.Env, fmt.Sprintf("SOURCE_DATE_EPOCH=%d", epoch.Unix()))
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := b.room.start(cmd); err != nil {
		return fmt.Errorf("starting mmdebstrap: %w", err)
	}
	consumeErr := consume(out)
	// The rest is tar's padding, or what follows a failure of ours. At the
	// end of the stream mmdebstrap is ending by itself, and its own reason is
	// better than that the stream was short.
	if rest, _ := io.CopyN(io.Discard, out, 1); rest > 0 && consumeErr != nil {
		cancel(consumeErr)
	}
	_, _ = io.Copy(io.Discard, out) // its end shows in Wait
	switch err := cmd.Wait(); {
	case consumeErr != nil && errors.Is(context.Cause(ctx), consumeErr):
		return consumeErr
	case err != nil:
		return finish(err)
	}
	return consumeErr
}

// command prepares a run of mmdebstrap. The returned function turns what Wait
// gave into an error that quotes the last lines of the output.
func (b bootstrap) command(ctx context.Context, args []string) (*exec.Cmd, func(error) error) {
	cmd := b.room.command(ctx, append([]string{b.path}, args...)...)
	watch := &watcher{note: b.note}
	cmd.Stderr = io.MultiWriter(b.log, watch)
	return cmd, func(err error) error {
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("installing the Debian packages was interrupted: %w", context.Cause(ctx))
		}
		return fmt.Errorf("installing the Debian packages failed (mmdebstrap: %w); the whole output is in %s and ends with:\n%s",
			err, b.log.Name(), strings.Join(watch.tail, "\n"))
	}
}

// watcher reports mmdebstrap's steps and keeps its last lines.
type watcher struct {
	note    func(string)
	partial []byte
	tail    []string
}

// tailLines are enough for apt's complaint together with its context.
const tailLines = 15

func (w *watcher) Write(p []byte) (int, error) {
	w.partial = append(w.partial, p...)
	for {
		i := bytes.IndexAny(w.partial, "\r\n")
		if i < 0 {
			return len(p), nil
		}
		w.line(string(bytes.TrimSpace(w.partial[:i])))
		w.partial = w.partial[i+1:]
	}
}

func (w *watcher) line(line string) {
	if line == "" {
		return
	}
	w.tail = append(w.tail, "  "+line)
	w.tail = w.tail[max(0, len(w.tail)-tailLines):]
	if w.note == nil {
		return
	}
	for _, s := range steps() {
		if strings.HasPrefix(line, "I: "+s.says) {
			w.note(s.meaning)
		}
	}
}

type step struct{ says, meaning string }

// steps are those lines of mmdebstrap that tell a person how far it is.
func steps() []step {
	return []step{
		{"running apt-get update", "reading the archive's index"},
		{"downloading packages with apt", "downloading essential packages"},
		{"extracting archives", "extracting essential packages"},
		{"installing essential packages", "installing essential packages"},
		{"installing remaining packages", "downloading and installing the other packages"},
		{"running --customize-hook", "adding the user and what comes from npm"},
		{"creating tarball", "packing"},
		{"removing tempdir", "cleaning up"},
	}
}

// findMmdebstrap looks for the program and says how to get it.
func findMmdebstrap() (string, error) {
	path, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return "", errors.New("building a Debian image needs mmdebstrap, which is not installed: on Debian and Ubuntu run `sudo apt-get install mmdebstrap`, on Fedora `sudo dnf install mmdebstrap`")
	}
	version := exec.Command(path, "--version")
	version.Env = buildEnvironment(os.Environ())
	out, err := version.Output()
	if err != nil {
		return "", fmt.Errorf("%s does not run: %w", path, err)
	}
	sc := bufio.NewScanner(bytes.NewReader(out))
	sc.Scan()
	if strings.HasPrefix(sc.Text(), "mmdebstrap 0.") {
		return "", fmt.Errorf("%s is %s; version 1 or newer is needed", path, sc.Text())
	}
	return path, nil
}
