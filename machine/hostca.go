package machine

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// TrustSystem is the TrustHostCA of who wants the guest to believe what was added to
// this machine.
const TrustSystem = "system"

// addedCertificates are where systems have the certificates that somebody added to those
// that came with them.
var addedCertificates = []string{
	"/usr/local/share/ca-certificates/*.crt", // Debian
	"/usr/local/share/ca-certificates/*/*.crt",
	"/etc/pki/ca-trust/source/anchors/*",          // Fedora
	"/etc/pki/trust/anchors/*",                    // openSUSE
	"/etc/ca-certificates/trust-source/anchors/*", // Arch
}

// maxHostCA is a hundred certificates, in bytes: a guest is told all of them in one message.
const maxHostCA = 256 << 10

// readHostCA returns the certificates that the guest is to believe, in PEM: those in a
// file, or those that were added to this machine; nothing else that is in such a file.
func readHostCA(from string, added []string) (certificates []byte, err error) {
	if from == "" {
		return nil, nil
	}
	paths := []string{from}
	if from == TrustSystem {
		paths = nil
		for _, pattern := range added {
			found, err := filepath.Glob(pattern)
			if err != nil {
				return nil, err
			}
			paths = append(paths, found...)
		}
	}
	for _, path := range paths {
		found, err := readCertificates(path)
		if err != nil {
			return nil, fmt.Errorf("certificates for the guest: %w", err)
		}
		certificates = append(certificates, found...)
	}
	switch {
	case len(certificates) > maxHostCA:
		return nil, fmt.Errorf("the certificates for the guest have %d bytes, and may have %d: give a file with those that it needs", len(certificates), maxHostCA)
	case len(certificates) == 0 && from == TrustSystem:
		return nil, remedy.Add(errors.New("no certificate was added to this machine for the guest to believe"), remedy.Set, "trust-host-ca", "a file with certificates")
	case len(certificates) == 0:
		return nil, fmt.Errorf("there is no certificate in PEM in %s", from)
	}
	return certificates, nil
}

func readCertificates(path string) (certificates []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxHostCA+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxHostCA {
		return nil, fmt.Errorf("%s has more than %d bytes: give a file with the certificates that the guest needs", path, maxHostCA)
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" { // such as a key
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		certificates = append(certificates, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})...)
	}
	return certificates, nil
}
