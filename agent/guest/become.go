//go:build linux

package guest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"
)

// become makes the guest, whose memory is a copy of another one's, one of its
// own.
func (s *service) become(identity agent.Identity) error {
	key, err := ssh.ParsePublicKey(identity.Key)
	if err == nil {
		err = checkConfig(identity.Config)
	}
	if err != nil {
		return &wire.ControlError{Code: wire.CodeBadRequest, Message: err.Error()}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	config := identity.Config
	s.logger.Info("the guest becomes another one", "hostname", config.Hostname)
	errs := []error{writeHostname("/", config.Hostname), newMachineID("/"), newBootID("/"), setTimeZone("/", config.TimeZone), trustShares("/", s.image.User, config.Mounts), s.certificates.trust("/", config.Certificates)}

	_, mounts := partition(config.Mounts, func(m agent.Mount) bool { return slices.ContainsFunc(s.config.Mounts, m.SamePlace) })
	if err := applyMounts("/", s.image.User, mounts, &s.workspaces); err != nil {
		errs = append(errs, err)
	}
	if s.image.OpenSSH {
		errs = append(errs, writeSSHKeys("/", s.image.User, config))
	}
	if len(identity.Card) > 0 {
		errs = append(errs, nameCard(identity.Card))
	}
	s.writeFiles("/", config.Files)
	s.answerSSH(config)
	s.config, s.key = config, key
	return errors.Join(errs...)
}

// channelKey is the key that opens the host's channel now.
func (s *service) channelKey() ssh.PublicKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.key
}

// newBootID hides the kernel's boot id, which is part of its memory and cannot
// be changed, behind another one: programs take two guests with the same one
// for the same boot of one machine.
func newBootID(root string) error {
	const random = "/proc/sys/kernel/random/"
	shown := filepath.Join(root, random+"boot_id")
	file := filepath.Join(root, "/run/sandbox-agent.boot-id")
	text, err := os.ReadFile(filepath.Join(root, random+"uuid")) // another one at each reading
	if err != nil {
		return fmt.Errorf("cannot make a boot id: %w", err)
	}
	_ = unix.Unmount(shown, unix.MNT_DETACH) // that of an earlier life, if any
	err = replaceFile(file, string(text), 0o444)
	if err == nil {
		err = unix.Mount(file, shown, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = unix.Mount("", shown, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	if err != nil {
		return fmt.Errorf("cannot give the guest a boot id of its own: %w", err)
	}
	return os.Remove(file) // what is mounted stays
}
