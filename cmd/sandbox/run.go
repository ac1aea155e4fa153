package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func runCommand() *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "make a sandbox, start it and run a command in it",
		ArgsUsage: "[-- COMMAND [ARG...]]",
		Description: `Without COMMAND, run opens a shell. A sandbox that was made for one command and
has no --name is removed afterwards; every other one keeps running until
"sandbox stop". The exit code is the command's; 125 means that the sandbox did
not start, 126 and 127 that the command could not be run or was not found.

EXAMPLES
   sandbox run --share . -- npm test
   sandbox run --share .:src:ro --net none -- sh -c 'wc -l ~/src/*'
   sandbox run --name work --share . -p 8080:80
   sandbox run --env ANTHROPIC_API_KEY --share . -- claude
   sandbox run -d --name ci --memory 4G --cpus 4 --wait system`,
		Flags: append(createFlags(), append(commandFlags(),
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "print the sandbox's name when it is ready, and leave it running"},
			&cli.BoolFlag{Name: "warm", EnvVars: []string{"SANDBOX_WARM"}, Usage: "begin with the image's saved state in place of booting; it is made the first time, and for each size and number of shares"},
			&cli.BoolFlag{Name: "rm", Usage: "remove the sandbox, with its home, when it stops or does not start (the default for a command without --name)"},
			waitFlag(), timingsFlag())...),
		OnUsageError: usageError,
		Action:       runAction,
	}
}

// createFlags describe a sandbox to be made.
func createFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Usage: "`NAME` of the sandbox, which is its host name too (default: made up)"},
		&cli.StringFlag{Name: "image", EnvVars: []string{"SANDBOX_IMAGE"}, Usage: "`IMAGE` to start: NAME, NAME@DIGEST, or a directory, written with a slash, whose image is then installed (default: the store's default image)"},
		&cli.StringFlag{Name: "flake", EnvVars: []string{"SANDBOX_FLAKE"}, Usage: "start the image of this `FLAKE`, such as .#image; it is built with Nix if that was not done before, and `sandbox image build FLAKE` builds it anew"},
		archFlag(),
		&cli.StringFlag{Name: "memory", Aliases: []string{"m"}, EnvVars: []string{"SANDBOX_MEMORY"}, Usage: "memory of the guest, as `SIZE` such as 512M or 4G (default: the image's)"},
		&cli.IntFlag{Name: "cpus", EnvVars: []string{"SANDBOX_CPUS"}, Usage: "`NUMBER` of virtual CPUs (default: the image's)"},
		&cli.StringFlag{Name: "disk", EnvVars: []string{"SANDBOX_DISK"}, Usage: "keep what is written outside home and shares, such as installed packages, on a disk of `SIZE` such as 20G, which takes only the space that it needs (default: in memory, forgotten at stop)"},
		&cli.BoolFlag{Name: "no-home", Usage: "keep the home in the guest, where all else is, and not in a directory of this machine that outlives each stop; forks of such a sandbox without shares have their memory in common"},
		&cli.StringSliceFlag{Name: "share", Aliases: []string{"v"}, Usage: "share a directory as `HOST[:GUEST][:ro]`; GUEST is relative to the guest's home; programs in the guest that watch files must poll to notice changes made on this machine; repeatable"},
		&cli.BoolFlag{Name: machine.WeakIsolationFlag, Usage: "run also where this machine does not offer what keeps a guest in that has taken over QEMU or virtiofsd: it then has all your files"},
		&cli.BoolFlag{Name: "allow-dangerous-share", Usage: "share even /, a whole home, or a directory of keys: the guest can then read, and unless :ro also destroy, what is in it"},
		&cli.StringSliceFlag{Name: "publish", Aliases: []string{"p"}, Usage: "forward a port of this machine as `[IP:]HOST:GUEST[/udp]`; IP is 127.0.0.1 unless written; a server in the guest must listen on 0.0.0.0, and not on its 127.0.0.1 only; repeatable"},
		&cli.StringFlag{Name: "net", Value: string(network.ModeUser), EnvVars: []string{"SANDBOX_NET"}, Usage: "`MODE` of the network: user or none"},
		&cli.IntFlag{Name: "ssh-port", EnvVars: []string{"SANDBOX_SSH_PORT"}, Usage: "`PORT` of 127.0.0.1 that is forwarded to the guest's ssh (default: 2222, or a free one)"},
		&cli.StringSliceFlag{Name: "ssh-key", Usage: "public key `FILE` that may log in by ssh (default: ~/.ssh/*.pub); repeatable"},
		&cli.StringFlag{Name: "transport", Value: string(agent.TransportAuto), Hidden: true, Usage: "`CHANNEL` to the guest's agent: auto, vsock or serial"},
		&cli.StringFlag{Name: "machine", Hidden: true, Usage: "QEMU machine `TYPE`: microvm, q35 or virt"},
		&cli.StringFlag{Name: "restart", Value: string(machine.RestartOnReboot), EnvVars: []string{"SANDBOX_RESTART"}, Usage: "`WHEN` the sandbox runs again that ended by itself: no, on-reboot (of the guest), or always (also when it powered off or crashed)"},
		&cli.DurationFlag{Name: "timeout", Value: machine.DefaultReadyTimeout, EnvVars: []string{"SANDBOX_TIMEOUT"}, Usage: "how `LONG` the guest may take until commands can run"},
	}
}

func waitFlag() cli.Flag {
	return &cli.StringFlag{Name: "wait", Value: machine.StageAgent, Usage: "what to wait for: `STAGE` agent (commands can run) or system (services run too)"}
}

func runAction(c *cli.Context) error {
	err := run(c)
	var exit *exitCode
	if err == nil || errors.As(err, &exit) {
		return err
	}
	return &exitCode{exitRunFailure, err}
}

func run(c *cli.Context) error {
	ctx := c.Context
	sources, err := loadSettings(c)
	if err != nil {
		return err
	}
	command, err := parseCommand(c, c.Args().Slice())
	if err != nil {
		return err
	}
	if err := checkWait(c); err != nil {
		return err
	}
	if c.Bool("detach") && len(command.argv) > 0 {
		return errors.New("--detach starts a sandbox without a command: leave out the command and use sandbox exec, or leave out --detach")
	}
	host, err := machine.Open()
	if err != nil {
		return err
	}
	config, err := configure(c, host, sources)
	if err != nil {
		return err
	}
	if err := prepareFlake(c, host.Images, sources); err != nil {
		return err
	}
	if err := prepareImageDir(c, host.Images); err != nil {
		return err
	}
	img, err := useImage(c, host, &config)
	if err != nil {
		return err
	}
	config.Remove = c.Bool("rm") || (!c.IsSet("rm") && len(command.argv) > 0 && !c.IsSet("name"))
	plan, err := host.Plan(ctx, config, img)
	if err != nil {
		return err
	}
	begin := coldStart
	if c.Bool("warm") {
		begin = warmStart(ctx, host, config, plan)
	}
	s, err := host.Create(config)
	if err != nil {
		return err
	}
	hold, err := start(c, s, config.Remove && !c.Bool("detach"), begin)
	if err != nil {
		return errors.Join(err, removeFailed(c, s, config))
	}
	if c.Bool("detach") {
		fmt.Fprintln(c.App.Writer, s.Name)
		return nil
	}
	err = command.run(ctx, s)
	// With --rm, a sandbox that was detached from is removed when it stops.
	if errors.Is(err, errDetached) && hold != nil {
		return cmp.Or(hold.Release(), err)
	}
	if hold == nil {
		if !errors.Is(err, errDetached) {
			stillRunning(s)
		}
		return err
	}
	hold.Close()
	return errors.Join(err, s.Wait(context.WithoutCancel(ctx)))
}

// removeFailed removes a sandbox with --rm that did not start: its name is
// wanted again, and there is nothing in it yet. One that a detached run was not
// waited for goes on starting.
func removeFailed(c *cli.Context, s *machine.Sandbox, config machine.Config) error {
	if !config.Remove || (c.Bool("detach") && c.Context.Err() != nil) {
		return nil
	}
	return s.Remove(context.WithoutCancel(c.Context), true)
}

// stillRunning reminds a person of what the command has left behind.
func stillRunning(s *machine.Sandbox) {
	if isTerminal(os.Stderr) {
		fmt.Fprintf(notes(), "sandbox: %s keeps running: sandbox attach %[1]s opens a shell in it, sandbox stop %[1]s stops it\n", s.Name)
	}
}

func checkWait(c *cli.Context) error {
	if w := c.String("wait"); w != machine.StageAgent && w != machine.StageSystem {
		return &exitCode{exitUsage, fmt.Errorf("--wait is %q, but must be agent or system", w)}
	}
	return nil
}

// starter is one of the ways to start a sandbox.
type starter func(context.Context, *machine.Sandbox, machine.StartOptions) (*machine.Hold, error)

func coldStart(ctx context.Context, s *machine.Sandbox, o machine.StartOptions) (*machine.Hold, error) {
	return s.Start(ctx, o)
}

// start runs the sandbox's start and shows a person how far it is.
func start(c *cli.Context, s *machine.Sandbox, hold bool, begin starter) (*machine.Hold, error) {
	asked := time.Now()
	var held *machine.Hold
	err := showStart("starting "+s.Name, func(o machine.StartOptions) (err error) {
		o.Until, o.Hold = c.String("wait"), hold
		held, err = begin(c.Context, s, o)
		return err
	})
	if err != nil {
		if c.Context.Err() != nil && !hold && s.State().Status == machine.StatusStarting {
			err = fmt.Errorf("%w; %s goes on starting: sandbox stop %[2]s ends it", err, s.Name)
		}
		return held, err
	}
	if c.Bool("timings") {
		if err := showTimings(c.Context, notes(), s, asked); err != nil {
			fmt.Fprintf(notes(), "sandbox: the timings of %s cannot be shown: %v\n", s.Name, err)
		}
	}
	return held, nil
}

// showStart shows a person how far a start is.
func showStart(what string, start func(machine.StartOptions) error) error {
	var reporter *progress.Reporter // a nil one says nothing
	if isTerminal(os.Stderr) {
		reporter = progress.New(os.Stderr)
	}
	step := reporter.Start(what, 0)
	defer step.Fail()
	err := start(machine.StartOptions{
		Stage: step.Note,
		Note:  func(note string) { fmt.Fprintf(notes(), "sandbox: note: %s\n", note) },
	})
	if err == nil {
		step.Done()
	}
	return err
}

// configure makes a configuration from the flags. It leaves open what the image
// decides, which Resolve adds.
func configure(c *cli.Context, host *machine.Host, sources map[string]string) (machine.Config, error) {
	config := machine.Config{
		Name: c.String("name"),
		Hardware: machine.Hardware{
			CPUs: c.Int("cpus"), NoHome: c.Bool("no-home"),
			Transport: agent.Transport(c.String("transport")), Machine: qemu.Machine(c.String("machine")),
		},
		Access: machine.Access{SSHPort: c.Int("ssh-port"), AllowWeak: c.Bool(machine.WeakIsolationFlag)},
		Life:   machine.Life{ReadyTimeout: c.Duration("timeout")},
	}
	rules := host.ShareRules()
	rules.AllowDangerous = c.Bool("allow-dangerous-share")
	var errs [9]error
	config.MemoryMiB, errs[0] = parseSize("--memory", c.String("memory"))
	config.DiskMiB, errs[5] = parseSize("--disk", c.String("disk"))
	config.Shares, errs[1] = parseShares(c.StringSlice("share"), sources["share"], rules)
	config.Forwards, errs[2] = parseForwards(c.StringSlice("publish"))
	config.Network, errs[3] = network.ParseMode(c.String("net"))
	config.AuthorizedKeys, errs[4] = readPublicKeys(c.StringSlice("ssh-key"))
	if config.SSHPort != 0 { // one that was asked for must be had
		_, errs[6] = network.SSHForward(config.SSHPort, config.Forwards)
	}
	config.Restart, errs[7] = machine.ParseRestart(c.String("restart"))
	errs[8] = checkGiven(c, config)
	return config, errors.Join(errs[:]...)
}

// checkGiven refuses what was given as nothing: in a configuration, that would leave
// it open.
func checkGiven(c *cli.Context, config machine.Config) error {
	given := func(name string, nothing bool) bool { return c.IsSet(name) && nothing }
	switch {
	case given("name", config.Name == ""):
		return layout.CheckName("")
	case given("memory", config.MemoryMiB == 0):
		return fmt.Errorf("a guest needs memory: give --memory at least %dM", machine.MinMemoryMiB)
	case given("cpus", config.CPUs == 0):
		return errors.New("a guest needs a processor: give --cpus a number from 1 to 255")
	case given("timeout", config.ReadyTimeout == 0):
		return fmt.Errorf("a guest needs time to be ready: give --timeout a duration such as %v", machine.DefaultReadyTimeout)
	}
	return nil
}

// useImage finds the image and completes the configuration with it.
func useImage(c *cli.Context, host *machine.Host, config *machine.Config) (*image.Image, error) {
	img, err := imageForRun(c, host.Images)
	if err == nil {
		*config, err = host.Resolve(*config, img)
	}
	return img, err
}

// parseSize returns MiB; a number without a unit is MiB, as for QEMU's -m.
func parseSize(flag, s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	if strings.Trim(s, "0123456789") == "" {
		s += "M"
	}
	bytes, err := units.RAMInBytes(s)
	if err != nil {
		return 0, fmt.Errorf("%s is %q, but must be a size such as 512M or 4G", flag, s)
	}
	return int((bytes + 1<<20 - 1) >> 20), nil // rounded up, lest a little becomes none
}

// parseShares reads the shares that come from source. Those of a settings file are resolved and judged by where they
// lie already, so a link that has come since is a guest's work: of another sandbox with this project.
func parseShares(specs []string, source string, o virtiofs.CheckOptions) ([]virtiofs.Share, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	var shares []virtiofs.Share
	var errs []error
	for _, spec := range specs {
		share, err := virtiofs.ParseShare(spec, cwd)
		if err == nil && source != "" && source != fromUser && share.String() != spec {
			err = fmt.Errorf("%s: the share %s was replaced by a link to %s in this moment: look who has done that", source, spec, share.Source)
		}
		if err == nil {
			share, err = share.Admit(o)
		}
		shares, errs = append(shares, share), append(errs, allowHint(err))
	}
	return shares, errors.Join(errs...)
}

// allowHint tells by which flag a dangerous directory is shared.
func allowHint(err error) error {
	if _, ok := errors.AsType[*virtiofs.DangerError](err); ok {
		return fmt.Errorf("%w (--allow-dangerous-share shares it all the same)", err)
	}
	return err
}

func parseForwards(specs []string) ([]network.Forward, error) {
	var forwards []network.Forward
	var errs []error
	for _, spec := range specs {
		f, err := network.ParseForward(spec)
		if err == nil && f.HostIP.Is4() { // others are refused later, whether or not this machine has them
			err = f.CheckFree()
		}
		forwards, errs = append(forwards, f), append(errs, err)
	}
	return forwards, errors.Join(errs...)
}

// readPublicKeys reads the keys in files, or the user's own when there are
// none; a user without keys cannot use ssh, which is no error.
func readPublicKeys(files []string) ([]string, error) {
	asked := len(files) > 0
	if !asked {
		files = ownPublicKeys()
	}
	var keys []string
	for _, file := range files {
		data, err := readSmallFile(file)
		if err != nil {
			return nil, fmt.Errorf("--ssh-key: %w", err)
		}
		for line := range strings.Lines(string(data)) {
			line = strings.TrimSpace(line)
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			if _, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line)); err == nil {
				keys = append(keys, line)
			} else if asked {
				return nil, fmt.Errorf("--ssh-key: %s holds no OpenSSH public key; give the file that ends in .pub", file)
			}
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys), nil
}

// ownPublicKeys are the files of the user's keys. One that somebody else could
// have put there would let them into the sandbox.
func ownPublicKeys() []string {
	home, err := os.UserHomeDir()
	if err != nil {
		return nil
	}
	files, _ := filepath.Glob(filepath.Join(home, ".ssh", "*.pub"))
	owners := trust.Caller(os.Getenv)
	return slices.DeleteFunc(files, func(file string) bool {
		f, err := owners.Open(file)
		if err != nil {
			fmt.Fprintf(notes(), "sandbox: note: the key %s is left out: %v\n", file, err)
			return true
		}
		return f.Close() != nil
	})
}

// readSmallFile is readSmall of the file at path.
func readSmallFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readSmall(f)
}

// readSmall guards against devices and files given by mistake.
func readSmall(f *os.File) ([]byte, error) {
	const most = 1 << 20
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && len(data) > most {
		err = fmt.Errorf("%s is larger than 1 MiB: is it the right file?", f.Name())
	}
	return data, err
}
