package agent

import (
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// ChannelCrypto returns the algorithms of the channel between host and guest,
// for both of its ends. The channel never leaves the machine, and the guest
// may be emulated, where every primitive costs ten times its usual price: so
// they are the cheapest sound ones, and the post-quantum exchange is left out.
func ChannelCrypto() ssh.Config {
	ciphers := []string{ssh.CipherChaCha20Poly1305, ssh.CipherAES128GCM}
	if cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL {
		// The host's preference decides; without the instructions AES is slow.
		ciphers[0], ciphers[1] = ciphers[1], ciphers[0]
	}
	return ssh.Config{
		KeyExchanges: []string{ssh.KeyExchangeCurve25519},
		Ciphers:      ciphers,
	}
}
