package sshagent

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

const (
	// userauthRequest is the number of the message with which a login asks to be let in (RFC 4252, section 6).
	userauthRequest = 50

	// signatureMagic begins what is signed for a file or a commit (OpenSSH's PROTOCOL.sshsig).
	signatureMagic = "SSHSIG"

	// maxName bounds what is kept of names that the borrower chooses.
	maxName = 64
)

var errPurpose = errors.New("it is neither for a login by ssh nor for a signature that says what it is for")

// purpose tells what the data is for that a key is to sign, in words.
func purpose(key, data []byte) (string, error) {
	if text, ok := bytes.CutPrefix(data, []byte(signatureMagic)); ok {
		var signed struct {
			Namespace, Reserved, Hash string
			Digest                    []byte
		}
		if ssh.Unmarshal(text, &signed) != nil || signed.Namespace == "" {
			return "", errPurpose
		}
		return "a signature for " + quoted(signed.Namespace), nil
	}
	var login struct {
		Session               []byte
		Message               byte
		User, Service, Method string
		Signed                bool
		Algorithm             string
		Key                   []byte
		Host                  []byte `ssh:"rest"`
	}
	if ssh.Unmarshal(data, &login) != nil || login.Message != userauthRequest || login.Service != "ssh-connection" || !login.Signed || !bytes.Equal(login.Key, key) {
		return "", errPurpose
	}
	as := "a login as " + quoted(login.User)
	switch login.Method {
	case "publickey":
		if len(login.Host) == 0 {
			return as, nil
		}
	case "publickey-hostbound-v00@openssh.com": // OpenSSH's PROTOCOL, section 3.1
		var host struct{ Key []byte }
		if ssh.Unmarshal(login.Host, &host) == nil {
			return as + " at the host whose key is " + Fingerprint(host.Key), nil
		}
	}
	return "", errPurpose
}

// quoted is a name that the borrower has chosen, for a log.
func quoted(name string) string {
	if len(name) > maxName {
		name = name[:maxName] + "..."
	}
	return fmt.Sprintf("%q", name)
}
