//go:build linux

package guest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// earlyPowerOffDelay lets the answer to a poweroff request leave the guest
// when there is no init yet that would take its time.
const earlyPowerOffDelay = 50 * time.Millisecond

// Configure implements [Controller].
func (s *service) Configure(ctx context.Context, config agent.BootConfig) error {
	if err := checkConfig(config); err != nil {
		return &wire.ControlError{Code: wire.CodeBadRequest, Message: err.Error()}
	}
	s.mu.Lock()
	if s.configured {
		s.mu.Unlock()
		return &wire.ControlError{
			Code:    wire.CodeAlreadyConfigured,
			Message: "the guest has been configured already; that can be done once in each boot",
		}
	}
	s.configured = true
	s.config = config
	s.mu.Unlock()

	s.progress.reach(agent.StageConfigured)
	if err := addEntropy(config.Entropy); err != nil {
		return err
	}
	result := make(chan error, 1)
	s.offered <- offer{config, result}
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status implements [Controller].
func (s *service) Status() agent.Status { return s.progress.snapshot() }

// Wait implements [Controller].
func (s *service) Wait(ctx context.Context, stage agent.Stage) error {
	return s.progress.wait(ctx, stage)
}

// Sync implements [Controller]. The system call knows no end before its own.
func (s *service) Sync(context.Context) error {
	unix.Sync()
	return nil
}

// Resume implements [Controller].
func (s *service) Resume(_ context.Context, config agent.ResumeConfig) error {
	s.logger.Info("the guest goes on", "restored", config.Restored, "disconnected", config.Disconnected)
	s.askShares()
	errs := []error{addEntropy(config.Entropy)}
	if config.Restored {
		errs = append(errs, forgetNames())
		if s.workspaces.any() { // the host's files may be others than the guest remembers
			errs = append(errs, dropCaches())
		}
	}
	if config.Restored || config.Disconnected {
		if err := endConnections(); err != nil { // whose ends are noticed when they are next used
			s.logger.Warn("connections from before go on", "err", err)
		}
	}
	if config.Become == nil {
		errs = append(errs, s.certificates.trust("/", config.Certificates))
	} else {
		// After the entropy: what it makes up must not be what others make up.
		errs = append(errs, s.become(*config.Become))
	}
	return errors.Join(errs...)
}

// askShares sends each file server a request that no cache answers, and waits
// for none of them. One that was under way when the machine was stopped may not
// have been heard of by the server, which sees it when it hears of another.
func (s *service) askShares() {
	s.mu.Lock()
	mounts := s.config.Mounts
	s.mu.Unlock()
	for _, m := range mounts {
		go func() {
			var st unix.Statfs_t
			if m.CopyOnWrite { // at its target, the disk would answer
				_ = s.workspaces.askLower(m.Tag, &st)
				return
			}
			_ = unix.Statfs(m.Target, &st) // what it says is of no interest
		}()
	}
}

// PowerOff implements [Controller].
func (s *service) PowerOff(context.Context) error {
	s.logger.Info("powering off")
	if _, err := os.Stat(systemdSocket); err == nil && s.image.Readiness.System == "systemd" {
		if err := unix.Kill(1, systemdPowerOff); err != nil {
			return fmt.Errorf("cannot ask systemd to power off: %w", err)
		}
		return nil
	}
	time.AfterFunc(earlyPowerOffDelay, powerOff)
	return nil
}

// checkConfig finds mistakes before anything is changed.
func checkConfig(config agent.BootConfig) error {
	for _, m := range config.Mounts {
		if m.Tag == "" || m.Target == "" {
			return fmt.Errorf("the share %q on %q lacks its tag or its target", m.Tag, m.Target)
		}
		if m.File != "" && (m.File != filepath.Base(m.File) || !filepath.IsLocal(m.File) || m.File == ".") {
			return fmt.Errorf("the share %q on %q is of a file whose name %q is none", m.Tag, m.Target, m.File)
		}
		if m.Unreadable != "" && strings.ContainsRune(m.Tag, '/') {
			return fmt.Errorf("the tag %q of a share has a slash", m.Tag)
		}
	}
	for _, c := range config.Caches {
		if c.Serial == "" || !filepath.IsAbs(c.Target) {
			return fmt.Errorf("the cache %q on %q lacks its disk or its target", c.Serial, c.Target)
		}
	}
	if strings.ContainsAny(config.Hostname, "/\n\x00 ") || len(config.Hostname) > 64 {
		return fmt.Errorf("%q is not a host name", config.Hostname)
	}
	if err := checkTimeZone(config.TimeZone); err != nil {
		return err
	}
	if err := errors.Join(checkEnvironment(config.Environment), checkFiles(config.Files)); err != nil {
		return err
	}
	if len(config.HostKey) == 0 {
		return nil
	}
	_, _, err := parseKeys(config)
	return err
}

// parseKeys reads the keys that TCP port 22 needs.
func parseKeys(config agent.BootConfig) (ssh.Signer, []ssh.PublicKey, error) {
	signer, err := ssh.ParsePrivateKey(config.HostKey)
	if err != nil {
		return nil, nil, fmt.Errorf("the SSH host key cannot be read: %w", err)
	}
	var keys []ssh.PublicKey
	for i, line := range config.AuthorizedKeys {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		if err != nil {
			return nil, nil, fmt.Errorf("authorised key %d cannot be read: %w", i+1, err)
		}
		keys = append(keys, key)
	}
	return signer, keys, nil
}

// applyConfig makes the root that of one sandbox.
func applyConfig(root string, user boot.User, config agent.BootConfig, ws *workspaces) error {
	if err := errors.Join(writeHostname(root, config.Hostname), ensureMachineID(root), trustShares(root, user, config.Mounts)); err != nil {
		return err
	}
	return applyMounts(root, user, config.Mounts, ws)
}

// applyMounts mounts the home and the shares, and prepares what the user's
// programs expect to be theirs.
func applyMounts(root string, user boot.User, mounts []agent.Mount, ws *workspaces) error {
	point, err := directoryPoint(root, user.Home, user)
	if err != nil {
		return fmt.Errorf("cannot make the home %s: %w", user.Home, err)
	}
	point.Close()
	// The home first: mount points inside it must not make it look used.
	home, others := partition(mounts, func(m agent.Mount) bool {
		return shareTarget(user.Home, m.Target) == user.Home
	})
	if err := mountShares(root, user, home, ws); err != nil {
		return err
	}
	if err := fillHome(filepath.Join(root, "/etc/skel"), filepath.Join(root, user.Home), user); err != nil {
		return fmt.Errorf("cannot fill the new home %s: %w", user.Home, err)
	}
	if err := mountShares(root, user, others, ws); err != nil {
		return err
	}
	memory, err := totalMemory()
	if err == nil {
		err = memory.mountRuntimeDir(root, user)
	}
	if err != nil {
		return fmt.Errorf("cannot make the runtime directory of %s: %w", user.Name, err)
	}
	return nil
}

// partition separates the mounts that fulfil a condition from the rest and
// keeps the order of both.
func partition(mounts []agent.Mount, condition func(agent.Mount) bool) (with, without []agent.Mount) {
	for _, m := range mounts {
		if condition(m) {
			with = append(with, m)
		} else {
			without = append(without, m)
		}
	}
	return with, without
}

// writeHostname gives the guest its host name.
func writeHostname(root, hostname string) error {
	if hostname == "" {
		return nil
	}
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("cannot set the host name %q: %w", hostname, err)
	}
	old, _ := readIn(root, hosts) // if it cannot be read it is replaced
	if err := errors.Join(
		replaceFile(filepath.Join(root, "/etc/hostname"), hostname+"\n", 0o644),
		replaceFile(filepath.Join(root, hosts), hostsFile(string(old), hostname), 0o644),
	); err != nil {
		return fmt.Errorf("cannot write the host name down: %w", err)
	}
	return nil
}

// machineID is the file of machine-id(5).
const machineID = "/etc/machine-id"

// ensureMachineID makes a machine id unless there is one. With it, systemd does
// not take the boot for a first one, for which it would go through all units'
// presets.
func ensureMachineID(root string) error {
	if id, err := os.ReadFile(filepath.Join(root, machineID)); err == nil && len(strings.TrimSpace(string(id))) == 32 {
		return nil
	}
	return newMachineID(root)
}

func newMachineID(root string) error {
	var id [16]byte
	// It never fails: see crypto/rand.
	_, _ = rand.Read(id[:])
	if err := replaceFile(filepath.Join(root, machineID), hex.EncodeToString(id[:])+"\n", 0o444); err != nil {
		return fmt.Errorf("cannot write the machine id: %w", err)
	}
	return nil
}

// replaceFile replaces a file, or a link to one that belongs to a daemon which
// does not run in the guest. If it cannot, the old one stays as it is. One that
// has the text already is left alone: there may be no room for another.
func replaceFile(path, text string, mode os.FileMode) error {
	if info, err := os.Lstat(path); err == nil && info.Mode() == mode {
		if old, err := os.ReadFile(path); err == nil && string(old) == text {
			return nil
		}
	}
	fresh := path + ".sandbox-agent"
	err := os.WriteFile(fresh, []byte(text), mode)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		_ = os.Remove(fresh)
	}
	return err
}
