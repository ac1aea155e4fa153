package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/crypto/ssh/knownhosts"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/machine"
)

func sshCommand() *cli.Command {
	return &cli.Command{
		Name:      "ssh",
		Usage:     "run ssh to a running sandbox",
		ArgsUsage: "NAME [SSH-OPTION...] [COMMAND [ARG...]]",
		Description: `This is the ssh of your machine, with your own settings and all its options,
connected without a TCP port, a password or a question about host keys. As ever
with ssh, a shell in the guest reads the command; "sandbox exec" has exact
arguments. For plain ssh, scp, rsync and editors see "sandbox ssh-config".

EXAMPLES
   sandbox ssh work
   sandbox ssh work -L 8080:localhost:80 -N
   sandbox ssh work 'make && ./server'`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			args := c.Args().Slice()
			if len(args) == 0 {
				return usage("sandbox ssh needs the name of a sandbox: sandbox ls shows them")
			}
			s, err := runningForSSH(args[0])
			if err != nil {
				return err
			}
			path, err := exec.LookPath("ssh")
			if err != nil {
				return fmt.Errorf("there is no ssh on this machine: install it (Debian, Ubuntu: openssh-client; Fedora: openssh-clients), or use sandbox attach %s", s.Name)
			}
			options, err := ownSSHOptions()
			if err != nil {
				return err
			}
			argv := []string{"ssh"}
			for _, o := range options {
				argv = append(argv, "-o", o)
			}
			argv = append(append(argv, s.Name+machine.SSHSuffix), args[1:]...)
			return fmt.Errorf("running %s: %w", path, unix.Exec(path, argv, os.Environ()))
		},
	}
}

// runningForSSH opens a sandbox by its name or by its host name for ssh, and
// makes sure that ssh can reach it: our message is better than that of ssh.
func runningForSSH(name string) (*machine.Sandbox, error) {
	host, err := machine.Open()
	if err != nil {
		return nil, err
	}
	s, err := host.Get(strings.TrimSuffix(name, machine.SSHSuffix))
	if err != nil {
		return nil, err
	}
	return s, s.CheckRunning()
}

func proxyCommand() *cli.Command {
	return &cli.Command{
		Name:      "proxy",
		Usage:     "connect standard input and output to a sandbox's ssh",
		ArgsUsage: "NAME",
		Description: `For ProxyCommand in a configuration of ssh; "sandbox ssh-config" writes one.
NAME may end in ` + machine.SSHSuffix + `. It needs no key: who may run this command as you
has the sandbox anyway. The sandbox must be running.

EXAMPLES
   ssh -o ProxyCommand="sandbox proxy '%h'" work` + machine.SSHSuffix,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return usage("sandbox proxy needs the name of one sandbox: sandbox ls shows them")
			}
			s, err := runningForSSH(c.Args().First())
			if err != nil {
				return err
			}
			conn, err := s.DialSSH(c.Context)
			if err != nil {
				return err
			}
			defer conn.Close()
			return splice(conn, os.Stdin, os.Stdout)
		},
	}
}

// splice copies both ways until the connection ends.
func splice(conn net.Conn, in io.Reader, out io.Writer) error {
	go func() {
		_, _ = io.Copy(conn, in) // what went wrong shows on the way back
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
			return
		}
		conn.Close() // ssh has left
	}()
	_, err := io.Copy(out, conn)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, unix.EPIPE) {
		return nil
	}
	return err
}

// knownHostsCommand is what the configuration of ssh-config runs; people never
// do. It prints the host key of a sandbox in the form of a known_hosts file.
func knownHostsCommand() *cli.Command {
	return &cli.Command{
		Name: "known-hosts", Hidden: true, ArgsUsage: "HOST", OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			host, err := machine.Open()
			if err != nil {
				return err
			}
			s, err := host.Get(strings.TrimSuffix(c.Args().First(), machine.SSHSuffix))
			if err != nil {
				return err
			}
			key, err := s.HostKey()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, knownhosts.Line([]string{s.Name + machine.SSHSuffix}, key))
			return err
		},
	}
}
