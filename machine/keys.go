package machine

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"

	"golang.org/x/crypto/ssh"
)

// writeKey makes an ed25519 key pair and stores the private half, in
// OpenSSH's format, at path.
func writeKey(path, comment string) error {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	block, err := ssh.MarshalPrivateKey(private, "sandbox "+comment)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("writing the key %s: %w", path, err)
	}
	return nil
}

func readKey(path string) (ssh.Signer, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("the key %s is damaged: %w", path, err)
	}
	return key, nil
}

// keyArgument is the kernel command line's form of a public key.
func keyArgument(key ssh.PublicKey) string {
	return "sandbox.key=" + base64.RawStdEncoding.EncodeToString(key.Marshal())
}

// randomName makes names such as brave-otter until one is not taken.
func randomName(taken func(string) bool) string {
	first := []string{"able", "bold", "brave", "calm", "clever", "eager", "fair", "gentle", "happy", "keen", "kind", "lively", "lucky", "merry", "neat", "noble", "quick", "quiet", "sharp", "shiny", "smart", "swift", "warm", "wise"}
	second := []string{"badger", "beaver", "crane", "dolphin", "eagle", "falcon", "ferret", "finch", "fox", "gecko", "heron", "ibex", "lark", "lynx", "marten", "newt", "otter", "owl", "panda", "raven", "robin", "seal", "stork", "tern"}
	for tries := 0; ; tries++ {
		name := pick(first) + "-" + pick(second)
		if tries > len(first) {
			name = fmt.Sprintf("%s-%d", name, tries)
		}
		if !taken(name) {
			return name
		}
	}
}

func pick(words []string) string {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(len(words))))
	if err != nil {
		panic(err) // crypto/rand does not fail on Linux (getrandom(2))
	}
	return words[n.Int64()]
}
