//go:build linux

package server_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	sshagent "golang.org/x/crypto/ssh/agent"
)

// keyring is an agent of keys that has one, with the given comment.
func keyring(t *testing.T, comment string) sshagent.Agent {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ring := sshagent.NewKeyring()
	if err := ring.Add(sshagent.AddedKey{PrivateKey: private, Comment: comment}); err != nil {
		t.Fatal(err)
	}
	return ring
}

// listKeys runs ssh-add -l in a session that the client lends its keys.
func listKeys(t *testing.T, client *ssh.Client, ring sshagent.Agent) (keys, socket string) {
	t.Helper()
	if err := sshagent.ForwardToAgent(client, ring); err != nil {
		t.Fatal(err)
	}
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := sshagent.RequestAgentForwarding(session); err != nil {
		t.Fatal(err)
	}
	out, err := session.Output(`echo "$SSH_AUTH_SOCK"; ssh-add -l`)
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	socket, keys, _ = strings.Cut(string(out), "\n")
	return keys, socket
}

func TestAgentOfKeysIsLent(t *testing.T) {
	if _, err := exec.LookPath("ssh-add"); err != nil {
		t.Skip("ssh-add is not installed: apt-get install openssh-client")
	}
	f := newFixture(t)
	socket := forward(t, f)
	for name, client := range map[string]*ssh.Client{
		"direct": plainClient(t),
		// Two at the same time, over one connection to the guest.
		"forwarded":      through(t, socket).SSH(),
		"forwarded, too": through(t, socket).SSH(),
	} {
		keys, path := listKeys(t, client, keyring(t, "key of "+name))
		contains(t, keys, "key of "+name)
		client.Close()
		eventually(t, path+" goes with its client", func() bool {
			_, err := os.Stat(filepath.Dir(path))
			return os.IsNotExist(err)
		})
	}
}

func TestAgentOfKeysIsNotLentUnasked(t *testing.T) {
	f := newFixture(t)
	client := through(t, forward(t, f)).SSH()
	if err := sshagent.ForwardToAgent(client, keyring(t, "key")); err != nil {
		t.Fatal(err)
	}
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := session.Output(`echo "$SSH_AUTH_SOCK"`); err != nil || string(out) != "\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestPortsOfTheGuestAreForwardedBack(t *testing.T) {
	f := newFixture(t)
	for name, client := range map[string]*ssh.Client{"direct": plainClient(t), "forwarded": through(t, forward(t, f)).SSH()} {
		t.Run(name, func(t *testing.T) {
			listener, err := client.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				for {
					conn, err := listener.Accept()
					if err != nil {
						return
					}
					data, _ := io.ReadAll(conn)
					fmt.Fprintf(conn, "you said %s", data)
					conn.Close()
				}
			}()
			address := listener.Addr().String()
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprint(conn, "hello")
			if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(conn); err != nil || string(got) != "you said hello" {
				t.Errorf("%q, %v", got, err)
			}
			if err := listener.Close(); err != nil {
				t.Error(err)
			}
			eventually(t, "nobody listens any more", func() bool {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					conn.Close()
				}
				return err != nil
			})

			// What the client listens on ends with it.
			last, err := client.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			address = last.Addr().String()
			client.Close()
			eventually(t, "nobody listens after the client", func() bool {
				conn, err := net.Dial("tcp", address)
				if err == nil {
					conn.Close()
				}
				return err != nil
			})
		})
	}
}

func TestUsersCannotForwardPrivilegedPorts(t *testing.T) {
	if listener, err := plainClient(t).Listen("tcp", "127.0.0.1:1023"); err == nil {
		listener.Close()
		t.Error("somebody who is not root got a port of root's")
	}
}

func TestOpenSSHLendsItsAgentAndItsPorts(t *testing.T) {
	f := newFixture(t)
	socket := forward(t, f)
	listener, err := net.Listen("unix", filepath.Join(t.TempDir(), "agent"))
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ring := keyring(t, "key of OpenSSH")
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _ = sshagent.ServeAgent(ring, conn) }()
		}
	}()
	cmd := openSSH(t, socket, "ssh", "-A", "-R", "0:127.0.0.1:1", "agent@guest", "ssh-add -l")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+listener.Addr().String())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
	contains(t, string(out), "key of OpenSSH")
}
