package smoke

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"io"
	"net"

	"golang.org/x/crypto/ssh"
)

// newSSHKey makes the key with which one boot is logged in to.
func newSSHKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

// checkSSH logs in by the forwarded port, as any ssh client does.
func checkSSH(ctx context.Context, g *guest) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", g.ssh)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	out, err := g.login(conn)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("ssh to %s: %w", g.ssh, err)
	}
	if out != "in\n" {
		return "", fmt.Errorf("ssh to %s: echo in printed %q", g.ssh, out)
	}
	return "", nil
}

// login runs a command over ssh and returns its output.
func (g *guest) login(conn net.Conn) (string, error) {
	c, channels, requests, err := ssh.NewClientConn(conn, g.ssh, &ssh.ClientConfig{
		User:              g.user.Name,
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(g.sshKey)},
		HostKeyCallback:   ssh.FixedHostKey(g.sshHost),
		HostKeyAlgorithms: []string{g.sshHost.Type()},
	})
	if err != nil {
		return "", err
	}
	client := ssh.NewClient(c, channels, requests)
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := session.Start("echo in"); err != nil {
		return "", err
	}
	// An endless answer shows by its first bytes.
	out, err := io.ReadAll(io.LimitReader(stdout, maxOutput))
	if err != nil || len(out) == maxOutput {
		return string(out[:min(len(out), 100)]), err
	}
	return string(out), session.Wait()
}
