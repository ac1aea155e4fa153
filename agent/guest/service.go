//go:build linux

package guest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

const (
	// networkPatience is how long the agent's readiness waits for an address.
	// QEMU's own DHCP server gives one within milliseconds.
	networkPatience = 2 * time.Second

	// failurePatience is how long a guest that cannot start stays up, so that
	// the host can ask why.
	failurePatience = 3 * time.Second

	// serviceOOMScore keeps the service from ever being killed for memory.
	// Without it nobody could see why the guest is out of it, nor stop it.
	serviceOOMScore = "-1000"
)

// The limits of open files are those that systemd gives to its services. The
// kernel's own, 1024 and 4096, are too low for watchers of source trees.
const (
	softFiles = 1024
	hardFiles = 524288
)

// service is the agent's state in one boot.
type service struct {
	image    boot.Image
	params   boot.Params
	logger   *slog.Logger
	progress *progress
	starter  *server.Starter
	users    server.Accounts
	settings func(context.Context, server.User) []string // of a login

	rooted  chan struct{} // closed when the root is the guest's own
	settled chan struct{} // closed when the network is up, or there is none
	offered chan offer    // the host's configuration, at most one

	late []*os.File // see loadLateModules

	workspaces   workspaces
	certificates certificates

	mu         sync.Mutex
	disk       *disk // nil: none, or not yet
	configured bool
	config     agent.BootConfig
	key        ssh.PublicKey          // that alone opens the host's channel
	answerSSH  func(agent.BootConfig) // answers ssh by that configuration's keys from now on; set once commands can run
}

// offer is a configuration together with where the outcome goes.
type offer struct {
	config agent.BootConfig
	result chan<- error
}

// Service runs the agent until the guest shuts down. words leads to process 1,
// which waits for it to say how the first stage went. If that stage fails, the
// host has some time to ask for the reason before process 1 learns of it and
// ends the machine.
func Service(ctx context.Context, words io.WriteCloser) {
	s := &service{
		logger:   openLog(),
		progress: newProgress(uptime),
		starter:  &server.Starter{OOMScore: serviceOOMScore},
		rooted:   make(chan struct{}),
		settled:  make(chan struct{}),
		offered:  make(chan offer, 1),
	}
	s.settings = s.settingsWith(server.LoginSettings(s.starter, s.logger))
	s.progress.reach(agent.StageInit)
	err := s.start(ctx)
	if err == nil {
		err = s.enterRoot(words)
	}
	if err != nil {
		s.progress.fail(err)
		if s.params.Key != nil { // else the host could not have logged in
			select {
			case <-time.After(failurePatience):
			case <-ctx.Done():
			}
		}
		// If process 1 is gone, so is the reason to tell it.
		_, _ = fmt.Fprintf(words, "%s %s\n", wordFail, strings.ReplaceAll(err.Error(), "\n", "; "))
		return
	}
	s.finish(ctx)
	<-ctx.Done()
}

// start puts the root together: everything up to the point where process 1 may
// become init.
func (s *service) start(ctx context.Context) (err error) {
	if s.image, err = readImage(); err != nil {
		return err
	}
	if s.params, err = readParams(); err != nil {
		return err
	}
	s.key = s.params.Key
	s.users = server.Accounts{Etc: "/etc", Default: account(s.image.User)}
	s.prepareProcess()

	// The serial port works without a module, so the host can be answered
	// while these are still loading; vsock has to wait for its own.
	serving := make(chan error, 1)
	serve := func(transport func(context.Context) error) {
		err := transport(ctx)
		if err != nil {
			s.logger.Error("the host can no longer be answered", "err", err)
		}
		serving <- err
	}
	if s.params.VsockPort == 0 {
		go serve(s.serveSerial)
	}
	s.late = openLateModules("/modules")
	if err := loadModules("/modules", s.params.VsockPort != 0, s.logger); err != nil {
		return err
	}
	if s.params.VsockPort != 0 {
		go serve(s.serveVsock)
	}
	go (&network{progress: s.progress, logger: s.logger, rooted: s.rooted}).run(ctx, s.settled)
	disk, err := mountRoot(ctx, s.image.Store, s.params.DiskSerial, s.logger)
	if err != nil {
		return err
	}
	if disk != nil {
		s.mu.Lock()
		s.disk = disk
		s.mu.Unlock()
		s.progress.update(func(status *agent.Status) { status.Disk = disk.device })
	}
	if err := s.workspaces.keep(upperDir); err != nil {
		return err
	}
	s.progress.reach(agent.StageStore)
	// Without waiting for the host, whose configuration comes over it.
	if s.image.Prepare != "" {
		restoreHosts := keepHosts(newRoot)
		if err := prepareRoot(ctx, s.starter, newRoot, s.image.Prepare); err != nil {
			return err
		}
		if err := restoreHosts(); err != nil {
			return fmt.Errorf("cannot keep what was added to %s: %w", hosts, err)
		}
	}
	if err := nameTerminals(newRoot); err != nil {
		s.logger.Warn("terminals do not belong to the group tty", "err", err)
	}

	select {
	case offer := <-s.offered:
		err := applyConfig(newRoot, s.image.User, offer.config, &s.workspaces)
		if err == nil {
			err = mountCaches(ctx, newRoot, s.image.User, offer.config.Caches, s.logger)
		}
		if err == nil && s.image.OpenSSH {
			err = writeSSHKeys(newRoot, s.image.User, offer.config)
		}
		if err == nil {
			s.writeFiles(newRoot, offer.config.Files)
		}
		offer.result <- err
		s.progress.reach(agent.StageMounted)
		return err
	case err := <-serving:
		return fmt.Errorf("the transport to the host failed: %w", err)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// prepareProcess sets what this process needs, and what those that it starts
// inherit. Failure makes a guest that is worse, but of use.
func (s *service) prepareProcess() {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte(serviceOOMScore), 0o644); err != nil {
		s.logger.Warn("the agent is not protected from being killed for memory", "err", err)
	}
	memory, err := totalMemory()
	if err == nil {
		err = memory.setLimits("/proc/sys")
	}
	if err != nil {
		s.logger.Warn("the kernel's limits stay as they are", "err", err)
	}
	// Through package syscall, which would otherwise restore the kernel's own
	// limit in each child.
	limit := &syscall.Rlimit{Cur: softFiles, Max: hardFiles}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, limit); err != nil {
		s.logger.Warn("the limit of open files stays low", "err", err)
	}
}

// enterRoot moves the service into the new root and lets process 1 follow.
func (s *service) enterRoot(words io.WriteCloser) error {
	if err := unix.Chroot(newRoot); err != nil {
		return fmt.Errorf("cannot change to the new root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("cannot enter the new root: %w", err)
	}
	// Not before: the links of the zones' directories lead through the root.
	s.mu.Lock()
	zone, trusted := s.config.TimeZone, s.config.Certificates
	s.mu.Unlock()
	if err := setTimeZone("/", zone); err != nil {
		s.logger.Warn("the guest has another time zone than its host", "err", err)
	}
	if err := s.certificates.trust("/", trusted); err != nil {
		s.logger.Warn("what the network reads is refused by the guest's programs", "err", err)
	}
	if s.image.Readiness.System == "systemd" {
		if err := instructSystemd("/", s.image.User.UID); err != nil {
			return err
		}
	}
	forgetSockets(s.image.Listen)
	close(s.rooted)
	var last strings.Builder
	for _, path := range s.image.Listen {
		fmt.Fprintf(&last, "%s %s\n", wordListen, path)
	}
	if _, err := fmt.Fprintf(words, "%s%s %s\n", &last, wordSwitch, s.image.Init); err != nil {
		return fmt.Errorf("process 1 does not answer: %w", err)
	}
	return words.Close()
}

// finish does what commands need not wait for, or not for long, and announces
// the stages that are left.
func (s *service) finish(ctx context.Context) {
	s.startSSH(ctx)
	select {
	case <-s.settled:
	case <-time.After(networkPatience):
		s.logger.Warn("the guest is ready without a network", "waited", networkPatience)
	case <-ctx.Done():
		return
	}
	if err := awaitListeners(ctx, s.image.Listen); err != nil {
		s.logger.Warn("commands may not find all that they need", "err", err)
	}
	s.progress.reach(agent.StageAgent)
	go s.watchPowerButtons(ctx)
	go s.certificates.keep(ctx, "/", s.logger)
	s.logger.Info("ready for commands", "uptime", uptime().Round(time.Millisecond))
	go s.loadLateModules()
	go s.awaitSystem(ctx)
}

// startSSH answers ssh, and lets become change by which keys.
func (s *service) startSSH(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stop := func() {}
	s.answerSSH = func(config agent.BootConfig) {
		stop()
		if len(config.HostKey) > 0 && s.image.ListenSSH != 0 {
			stop = s.serveTCP(ctx, config)
		}
	}
	s.answerSSH(s.config)
}

// awaitSystem announces the image's own readiness.
func (s *service) awaitSystem(ctx context.Context) {
	if s.image.Readiness.System == "" {
		s.progress.reach(agent.StageSystem)
		return
	}
	var state string
	var failed []string
	err := waitForPath(ctx, systemdSocket)
	if err == nil {
		state, failed, err = systemState(ctx, systemctl)
	}
	if ctx.Err() != nil {
		return
	}
	s.progress.update(func(status *agent.Status) {
		status.System, status.FailedUnits = state, failed
	})
	if err != nil {
		s.progress.fail(err)
		s.logger.Error("the system is not ready", "err", err)
		return
	}
	if err := startUserManager(ctx, s.image.User.UID); err != nil {
		s.logger.Warn("systemctl --user does not work", "err", err)
	}
	s.progress.reach(agent.StageSystem)
	s.logger.Info("the system is ready", "state", state, "failed", failed, "uptime", uptime().Round(time.Millisecond))
}
