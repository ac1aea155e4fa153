//go:build linux

package guest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/crypto/ssh"
)

// prepareRoot runs the image's program that completes the new root, such as
// NixOS's activation, which makes /etc. It runs before init, so that the first
// command finds the root as every later one does. Its output goes to the
// console.
func prepareRoot(ctx context.Context, starter *server.Starter, root, program string) error {
	cmd := exec.CommandContext(ctx, program)
	cmd.Args, cmd.Dir, cmd.Env = []string{program}, "/", []string{"PATH=" + servicePath}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root}
	err := starter.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("the image's own preparation %s failed (its last words are above): %w", program, err)
	}
	return nil
}

// Where OpenSSH finds its keys. The second is NixOS's place for keys that an
// administrator hands out; other systems need it in AuthorizedKeysFile.
const (
	sshHostKey        = "/etc/ssh/ssh_host_ed25519_key"
	sshAuthorizedKeys = "/etc/ssh/authorized_keys.d"
)

// writeSSHKeys gives the sandbox's keys to the image's OpenSSH. A host that
// sends none leaves the image with those that it makes itself.
func writeSSHKeys(root string, user boot.User, config agent.BootConfig) error {
	if len(config.HostKey) == 0 {
		return nil
	}
	signer, keys, err := parseKeys(config)
	if err != nil {
		return err
	}
	var authorized []byte
	for _, key := range keys {
		authorized = append(authorized, ssh.MarshalAuthorizedKey(key)...)
	}
	hostKey, dir := filepath.Join(root, sshHostKey), filepath.Join(root, sshAuthorizedKeys)
	err = os.MkdirAll(dir, 0o755)
	if err == nil {
		err = errors.Join(
			replaceFile(hostKey, string(config.HostKey), 0o600),
			replaceFile(hostKey+".pub", string(ssh.MarshalAuthorizedKey(signer.PublicKey())), 0o644),
			// sshd reads it as the user.
			replaceFile(filepath.Join(dir, user.Name), string(authorized), 0o444),
		)
	}
	if err != nil {
		return fmt.Errorf("cannot write the sandbox's SSH keys down: %w", err)
	}
	return nil
}
