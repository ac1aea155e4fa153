package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

// sshConfigFile, beside the user's own configuration, is ours alone.
const sshConfigFile = "sandbox_config"

func sshConfigCommand() *cli.Command {
	return &cli.Command{
		Name:      "ssh-config",
		Usage:     "print or install what ssh needs to reach sandboxes by name",
		ArgsUsage: "[NAME...]",
		Description: `Afterwards ssh, scp, sftp, rsync and editors reach the sandbox work as
work` + machine.SSHSuffix + `, with no TCP port, no password and no question about host keys. New
sandboxes are reached too. Editors list those that existed when this ran, or
those that are named.

--install writes ~/.ssh/` + sshConfigFile + ` and puts an Include of it at the top of
~/.ssh/config, which is otherwise left as it is.

EXAMPLES
   sandbox ssh-config --install
   ssh work` + machine.SSHSuffix + `
   rsync -a src/ work` + machine.SSHSuffix + `:src/
   sandbox ssh-config work > config && ssh -F config work` + machine.SSHSuffix,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "install", Usage: "write it to ~/.ssh, and include it in ~/.ssh/config"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			patterns, err := sshPatterns(c.Args().Slice(), c.Bool("install"))
			if err != nil {
				return err
			}
			options, err := ownSSHOptions()
			if err != nil {
				return err
			}
			config := sshConfig(patterns, options)
			if !c.Bool("install") {
				_, err := fmt.Fprint(c.App.Writer, config)
				return err
			}
			home, err := os.UserHomeDir()
			if err != nil {
				return err
			}
			changed, err := installSSHConfig(filepath.Join(home, ".ssh"), config)
			if err != nil {
				return fmt.Errorf("installing the configuration for ssh: %w", err)
			}
			for _, file := range changed {
				fmt.Fprintln(c.App.Writer, "wrote", file)
			}
			return nil
		},
	}
}

// sshPatterns are the host names that the configuration is for. Single names
// are of use although the last pattern covers them: editors list them.
func sshPatterns(names []string, all bool) ([]string, error) {
	host, err := machine.Open()
	if err != nil {
		return nil, err
	}
	all = all || len(names) == 0
	if len(names) == 0 {
		sandboxes, err := host.List()
		if err != nil {
			return nil, err
		}
		for _, s := range sandboxes {
			names = append(names, s.Name)
		}
	}
	var patterns []string
	for _, name := range names {
		if _, err := host.Get(name); err != nil {
			return nil, err
		}
		patterns = append(patterns, name+machine.SSHSuffix)
	}
	if all {
		patterns = append(patterns, "*"+machine.SSHSuffix)
	}
	return patterns, nil
}

// ownSSHOptions are sshOptions for this very program.
func ownSSHOptions() ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return sshOptions(self)
}

// sshOptions tell ssh how to reach a sandbox. They are in the form of both the
// configuration file and -o.
func sshOptions(self string) ([]string, error) {
	if strings.ContainsAny(self, "\"'\\\n") {
		return nil, fmt.Errorf("ssh cannot run a program whose path has quotes or backslashes in it: move %s", self)
	}
	self = strings.ReplaceAll(self, "%", "%%")
	return []string{
		// ProxyCommand is for the user's shell, KnownHostsCommand is split by
		// ssh itself: single and double quotes mean the same to both here. The
		// host's name may come from a link or a submodule, and older versions
		// of ssh let the shell read it; see sshConfig for the quote itself.
		"ProxyCommand '" + self + "' proxy '%h'",
		`KnownHostsCommand "` + self + `" known-hosts %H`,
		"UserKnownHostsFile /dev/null",
		"GlobalKnownHostsFile /dev/null",
		// The supervisor knows the key, so there is nothing to ask.
		"StrictHostKeyChecking yes",
		"UpdateHostKeys no",
		// Settings for all hosts must not lend the guest what is the host's.
		"ForwardAgent no",
		"ForwardX11 no",
		"SendEnv COLORTERM", // the kind of terminal goes anyway
		"User agent",
	}, nil
}

func sshConfig(patterns, options []string) string {
	var b strings.Builder
	b.WriteString("# Written by sandbox ssh-config, which will overwrite it.\n")
	// A quote in the name would end that around it in ProxyCommand.
	fmt.Fprintf(&b, "Host %s \"!*'*\"\n", strings.Join(patterns, " "))
	for _, o := range options {
		fmt.Fprintf(&b, "  %s\n", o)
	}
	return b.String()
}

// installSSHConfig writes our file in the directory dir, and includes it in
// the user's. It returns the files that it changed.
func installSSHConfig(dir, config string) (changed []string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ours := filepath.Join(dir, sshConfigFile)
	// Where ssh looks for a relative path depends on how it was started.
	include := `Include "` + ours + `"`
	theirs := filepath.Join(dir, "config")
	if target, err := filepath.EvalSymlinks(theirs); err == nil {
		theirs = target // people keep it with their other settings
	} else if _, err := os.Lstat(theirs); err == nil {
		return nil, fmt.Errorf("%s is a symbolic link to a file that does not exist: make that file, or remove the link", theirs)
	}
	old, mode, err := readConfig(theirs)
	if err != nil {
		return nil, err
	}
	if current, err := os.ReadFile(ours); err != nil || string(current) != config {
		if err := renameio.WriteFile(ours, []byte(config), 0o600); err != nil {
			return nil, err
		}
		changed = append(changed, ours)
	}
	if includes(old, include) {
		return changed, nil
	}
	newline := "\n"
	if bytes.Contains(old, []byte("\r\n")) {
		newline = "\r\n"
	}
	text := append([]byte(include+newline), old...)
	if err := renameio.WriteFile(theirs, text, mode, renameio.IgnoreUmask()); err != nil {
		return changed, err
	}
	return append(changed, theirs), nil
}

func readConfig(path string) ([]byte, os.FileMode, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0o600, nil
	}
	if err != nil {
		return nil, 0, err
	}
	text, err := os.ReadFile(path)
	return text, info.Mode().Perm(), err
}

// includes tells whether the line is in force for all hosts: after the first
// Host or Match it would be for some.
func includes(config []byte, include string) bool {
	for line := range strings.Lines(string(config)) {
		line = strings.TrimSpace(line)
		if line == include {
			return true
		}
		key, _, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		key, _, _ = strings.Cut(key, "=")
		if strings.EqualFold(key, "Host") || strings.EqualFold(key, "Match") {
			return false
		}
	}
	return false
}
