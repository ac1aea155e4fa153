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

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/internal/trust"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/layout"
	"github.com/sourcery-zone/sandbox/machine/project"
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
   sandbox run --agent claude --share .
   sandbox run --secret GITHUB_TOKEN@api.github.com --share . -- ./release
   sandbox run -d --name ci --memory 4G --cpus 4 --wait system`,
		Flags: append(createFlags(), append(commandFlags(),
			&cli.BoolFlag{Name: "explain", Usage: "print what --agent stands for, as the flags that do the same, and run nothing"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "print the sandbox's name when it is ready, and leave it running"},
			&cli.BoolFlag{Name: "warm", EnvVars: []string{"SANDBOX_WARM"}, Usage: "begin with the image's saved state in place of booting; it is made the first time, and for each size and number of shares"},
			&cli.BoolFlag{Name: "rm", Usage: "remove the sandbox, with its home, when it stops or does not start (the default for a command without --name)"},
			waitFlag(), timingsFlag())...),
		OnUsageError: usageError,
		Action:       runAction,
	}
}

func waitFlag() cli.Flag {
	return &cli.StringFlag{Name: "wait", Value: machine.StageAgent, Usage: "what to wait for: `STAGE` agent (commands can run) or system (services run too)"}
}

func runAction(c *cli.Context) error {
	err := run(c)
	if _, decided := errors.AsType[*exitCode](err); err == nil || decided {
		return err
	}
	return &exitCode{exitRunFailure, err}
}

func run(c *cli.Context) error {
	ctx := c.Context
	sources, dir, err := loadSettings(c, insistOnConsent)
	if err != nil {
		return err
	}
	command, err := parseCommand(c, commandOf(c))
	if err != nil {
		return err
	}
	noteReadableKeys(c.StringSlice("env"))
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
	home, err := readAgentHome(c)
	if err != nil {
		return err
	}
	joinProject(&config, dir, openAnswers(host.Dirs), sources)
	if c.Bool("explain") {
		return errors.Join(explainAIAgent(c, host), home.explain(host.Dirs, config.Project))
	}
	if err := home.share(host.Dirs, &config); err != nil {
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
	noteFarRepositories(plan.Shares)
	noteClones(c, config)
	noteRepositories(plan.Shares)
	secrets, err := host.Secrets(ctx, config)
	if err != nil {
		return err
	}
	begin := starter(coldStart)
	if c.Bool("warm") {
		begin = warmStart(ctx, host, config, plan)
	}
	s, err := host.Create(config)
	if err != nil {
		return err
	}
	hold, err := start(c, s, config.Remove && !c.Bool("detach"), begin.with(secrets))
	if err != nil {
		return errors.Join(err, removeFailed(c, s, config))
	}
	// The agent works without it, but asks for more.
	workdir, err := command.dir(s)
	if err == nil {
		err = home.copy(ctx, host, s, workdir)
	}
	if err != nil {
		fmt.Fprintf(notes(), "sandbox: note: %s\n", sentences(err))
	}
	if c.Bool("detach") {
		fmt.Fprintln(c.App.Writer, s.Name)
		return nil
	}
	if config.Asks() && isTerminal(os.Stderr) {
		fmt.Fprintf(notes(), "sandbox: sandbox net ask %s shows in another terminal what the guest asks for, and takes your answers\n", s.Name)
	}
	err = explainNotFound(command.session(ctx, s, hold == nil), c, config)
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
		if ports := publishedInWords(s.State()); ports != "" {
			fmt.Fprintf(notes(), "sandbox: what listens in %s: %s\n", s.Name, ports)
		}
	}
}

func checkWait(c *cli.Context) error {
	if w := c.String("wait"); w != machine.StageAgent && w != machine.StageSystem {
		return usage("--wait is %q, but must be agent or system", w)
	}
	return nil
}

// starter is one of the ways to start a sandbox.
type starter func(context.Context, *machine.Sandbox, machine.StartOptions) (*machine.Hold, error)

// with is the same way, for who has got the sandbox's secrets already.
func (begin starter) with(secrets machine.Secrets) starter {
	return func(ctx context.Context, s *machine.Sandbox, o machine.StartOptions) (*machine.Hold, error) {
		o.Secrets = secrets
		return begin(ctx, s, o)
	}
}

func coldStart(ctx context.Context, s *machine.Sandbox, o machine.StartOptions) (*machine.Hold, error) {
	return s.Start(ctx, o)
}

// start runs the sandbox's start and shows a person how far it is.
func start(c *cli.Context, s *machine.Sandbox, hold bool, begin starter) (*machine.Hold, error) {
	asked := time.Now()
	noteClosedSecrets(s)
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
			fmt.Fprintf(notes(), "sandbox: the timings of %s cannot be shown: %s\n", s.Name, sentences(err))
		}
	}
	return held, nil
}

// noteFarRepositories tells of shares in which git will not work, and how it would. What a share says of its repository may
// be a guest's words.
func noteFarRepositories(shares []virtiofs.Share) {
	for _, far := range machine.FarRepositories(shares) {
		spec := func(dir string) string {
			return qemu.ShellQuote([]string{virtiofs.Share{Source: dir, Target: dir}.String()})
		}
		fmt.Fprintf(notes(), "sandbox: note: git will not work in %s, whose repository is %s: with --share %s --share %s, the guest has both where they are here\n",
			far.Share.Source, far.Directory, spec(far.Share.Source), spec(far.Directory))
	}
}

// noteRepositories tells of repositories that the guest has because of a worktree, a submodule or what another one borrows,
// and of those that it would need.
func noteRepositories(shares []virtiofs.Share) {
	submodules := machine.SubmoduleRepositories(shares)
	for _, share := range shares {
		of, kind := strings.Join(share.Rules.Worktrees, ", "), "worktree"
		if submodule := submodules[share.Source]; submodule != "" {
			of, kind = submodule, "submodule"
		}
		if of != "" {
			fmt.Fprintf(notes(), "sandbox: note: the guest has the repository %s too, of which %s is a %s, and both where they are here\n", share.Source, of, kind)
		}
	}
	for _, b := range machine.BorrowedObjects(shares) {
		if b.Shared {
			fmt.Fprintf(notes(), "sandbox: note: the guest can read all objects in %s too, from which the repository %s borrows\n", b.Directory, b.Repository)
			continue
		}
		spec := qemu.ShellQuote([]string{virtiofs.Share{Source: b.Directory, Target: b.Target, ReadOnly: true, Objects: true}.String()})
		fmt.Fprintf(notes(), "sandbox: note: git may miss objects of the repository %s, which names %s as a place for them: if that is one of yours, the guest has them with --share %s\n",
			b.Repository, b.Directory, spec)
	}
}

// noteClosedSecrets tells of secrets that the guest cannot use.
func noteClosedSecrets(s *machine.Sandbox) {
	config, err := s.Config()
	if err != nil {
		return // as the start says
	}
	for _, closed := range config.ClosedSecrets() {
		fmt.Fprintf(notes(), "sandbox: note: the secret %s is for %s, which the network closes: sandbox net allow %s %[2]s opens it\n", closed.Name, closed.Rule, s.Name)
	}
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
func configure(c *cli.Context, host *machine.Host, sources sources) (machine.Config, error) {
	config := machine.Config{
		Name: c.String("name"),
		Hardware: machine.Hardware{
			CPUs: c.Int("cpus"), NoHome: c.Bool("no-home"), Caches: guestPaths(c.StringSlice("cache")),
			Transport: agent.Transport(c.String("transport")), Machine: qemu.Machine(c.String("machine")),
		},
		Access: machine.Access{Allow: c.StringSlice("allow"), Deny: c.StringSlice("deny"), Secrets: c.StringSlice("secret"), UpstreamProxy: c.String("upstream-proxy"), SSHPort: c.Int("ssh-port"), AllowWeak: c.Bool("allow-weak-isolation")},
		Life:   machine.Life{ReadyTimeout: c.Duration("timeout")},
	}
	rules := host.ShareRules()
	rules.AllowDangerous = c.Bool("allow-dangerous-share")
	var errs [15]error
	config.MemoryMiB, errs[0] = parseSize("--memory", c.String("memory"))
	config.DiskMiB, errs[5] = parseSize("--disk", c.String("disk"))
	config.HomeQuotaMiB, errs[13] = parseSize("--home-quota", c.String("home-quota"))
	config.Shares, errs[1] = parseShares(c.StringSlice("share"), sources["share"], rules)
	specs := c.StringSlice("publish")
	config.AutoPublish = slices.Contains(specs, autoPublish)
	config.Forwards, errs[2] = parseForwards(slices.DeleteFunc(specs, isAutoPublish))
	config.Network, errs[3] = network.ParseMode(c.String("net"))
	if config.TrustHostCA = c.String("trust-host-ca"); config.TrustHostCA != "" && config.TrustHostCA != machine.TrustSystem {
		config.TrustHostCA, errs[10] = filepath.Abs(config.TrustHostCA)
	}
	if opensAList(c) && sources["net"].Layer == project.Default {
		config.Network = network.ModeAllowlist
	}
	if c.Bool("git-push-only") {
		config.Allow = append(config.Allow, "git:origin")
	}
	if c.Bool("git-credentials") {
		config.GitCredentials = []string{"origin"}
	}
	errs[11] = addAIAgent(c, host, &config, sources)
	config.SSHAgentKeys, config.SSHAgentAsk, errs[12] = pickKeys(c.Context, c.StringSlice("ssh-agent"))
	config.GPGAgentKeys, config.GPGAgentAsk, errs[14] = pickGPGKeys(c.Context, c.StringSlice("gpg-agent"))
	config.AuthorizedKeys, errs[4] = readPublicKeys(c.StringSlice("ssh-key"))
	if config.SSHPort != 0 { // one that was asked for must be had
		_, errs[6] = network.SSHForward(config.SSHPort, config.Forwards)
	}
	config.Restart, errs[7] = machine.ParseRestart(c.String("restart"))
	errs[8] = checkGiven(c, config)
	config.HostPorts, errs[9] = parseHostPorts(c.StringSlice("allow-host-port"))
	return config, errors.Join(errs[:]...)
}

// guestPaths are the paths in the guest that are meant: a shell has made the user's own home of "~".
func guestPaths(paths []string) []string {
	home, err := os.UserHomeDir()
	for i, path := range paths {
		if below, ok := strings.CutPrefix(path, home+"/"); err == nil && ok {
			paths[i] = "~/" + below
		}
	}
	return paths
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
	if err != nil {
		return nil, err
	}
	asked := config.Allow
	if *config, err = host.Resolve(*config, img); err != nil {
		return nil, err
	}
	// What a share's remote is may have been written by a guest that had it before.
	for _, rule := range config.Allow {
		if !slices.Contains(asked, rule) {
			fmt.Fprintf(notes(), "sandbox: note: the guest may fetch from and push to %s\n", strings.TrimPrefix(rule, "git:"))
		}
	}
	for _, address := range config.GitCredentials {
		fmt.Fprintf(notes(), "sandbox: note: the guest uses the credentials that your git has for %s\n", address)
	}
	return img, nil
}

// parseSize returns MiB; nothing is 0.
func parseSize(flag, s string) (int, error) {
	if s == "" {
		return 0, nil
	}
	size, err := project.ParseSize(s)
	if err != nil {
		return 0, fmt.Errorf("%s is %q, but must be %w", flag, s, err)
	}
	return size, nil
}

// parseShares reads the shares that come from source. Those of a settings file are resolved and judged by where they
// lie already, so a link that has come since is a guest's work: of another sandbox with this project.
func parseShares(specs []string, source project.Source, o virtiofs.CheckOptions) ([]virtiofs.Share, error) {
	cwd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	var shares []virtiofs.Share
	var errs []error
	for _, spec := range specs {
		share, err := virtiofs.ParseShare(spec, cwd)
		if err == nil && source.OfFile() && share.String() != spec {
			err = fmt.Errorf("%s: the share %s was replaced by a link to %s in this moment: look who has done that", source, spec, share.Source)
		}
		if err == nil {
			named := share.Source
			share, err = share.Admit(o)
			if rel, _ := filepath.Rel(named, share.Source); err == nil && source.OfFile() && !filepath.IsLocal(rel) {
				err = fmt.Errorf("%s: the repository of %s is %s, outside of the project: give --share %s yourself if the guest is to have a clone of it", source, named, share.Source, spec)
			}
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

const autoPublish = project.AutoPublish

func isAutoPublish(spec string) bool { return spec == autoPublish }

func parseForwards(specs []string) ([]network.Forward, error) {
	forwards, err := readForwards(specs)
	errs := []error{err}
	for _, f := range forwards {
		if f.HostIP.Is4() { // others are refused later, or when they are opened
			errs = append(errs, f.CheckFree())
		}
	}
	return forwards, errors.Join(errs...)
}

// readForwards reads ports, of which nothing is said about whether they are free. Those
// that it cannot read are missing.
func readForwards(specs []string) (forwards []network.Forward, err error) {
	var errs []error
	for _, spec := range specs {
		f, err := network.ParseForward(spec)
		if err == nil {
			forwards = append(forwards, f)
		}
		errs = append(errs, err)
	}
	return forwards, errors.Join(errs...)
}

func parseHostPorts(specs []string) (ports []network.HostPort, err error) {
	var errs []error
	for _, spec := range specs {
		p, err := network.ParseHostPort(spec)
		ports, errs = append(ports, p), append(errs, err)
	}
	return ports, errors.Join(errs...)
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
