package supervisor

import (
	"encoding/base64"

	"golang.org/x/crypto/ssh"
)

// keyArgument is the kernel command line's form of a public key.
func keyArgument(key ssh.PublicKey) string {
	return "sandbox.key=" + base64.RawStdEncoding.EncodeToString(key.Marshal())
}
