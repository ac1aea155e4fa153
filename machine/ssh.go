package machine

import (
	"golang.org/x/crypto/ssh"

	"github.com/sourcery-zone/sandbox/machine/layout"
)

// SSHSuffix follows a sandbox's name in the host name by which ssh knows it.
// Names of sandboxes have no dot in them, so that no other host is meant.
const SSHSuffix = ".sandbox"

// HostKey is the public key by which the sandbox proves itself to ssh, on its
// port as well as on the connections of DialSSH.
func (s *Sandbox) HostKey() (ssh.PublicKey, error) {
	key, err := layout.ReadKey(s.Files().Key(layout.HostKey))
	if err != nil {
		return nil, err
	}
	return key.PublicKey(), nil
}

// CheckRunning returns nil if commands can run in the sandbox, and otherwise
// an error that says what to do.
func (s *Sandbox) CheckRunning() error {
	if st := s.State(); st.Status != StatusRunning {
		return s.NotRunning(st)
	}
	return nil
}
