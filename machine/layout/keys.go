package layout

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
	"golang.org/x/crypto/ssh"
)

// WriteKey makes an ed25519 key pair and stores the private half, in
// OpenSSH's format, at path.
func WriteKey(path, comment string) error {
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

func ReadKey(path string) (ssh.Signer, error) {
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

// RecommentKey writes the private key at path anew with the comment that
// WriteKey would have given it.
func RecommentKey(path, comment string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	key, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		return fmt.Errorf("the key %s is damaged: %w", path, err)
	}
	block, err := ssh.MarshalPrivateKey(key, "sandbox "+comment)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
		return fmt.Errorf("writing the key %s: %w", path, err)
	}
	return nil
}
