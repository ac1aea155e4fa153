package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// gitRemote is a rule that names a remote of the shared repositories, such as
// git:origin, and not an address.
var gitRemote = regexp.MustCompile(`^git:([A-Za-z0-9_][A-Za-z0-9_.-]*)$`)

const (
	// maxGitConfig is a hundred times what a repository's configuration has, in bytes.
	maxGitConfig = 1 << 20
	// gitPatience is for a program that reads a file that it is handed.
	gitPatience = 10 * time.Second
)

// ResolveRemotes replaces the rules that name a remote by those of the repositories
// where it leads now. It is done once: what stands in a share is the guest's to change
// from its first start on.
func ResolveRemotes(rules []string, shares []virtiofs.Share) ([]string, error) {
	var resolved []string
	for _, rule := range rules {
		m := gitRemote.FindStringSubmatch(rule)
		if m == nil {
			resolved = append(resolved, rule)
			continue
		}
		found := false
		for _, share := range SharedDirectories(shares) {
			addresses, err := remoteAddresses(share.Source, m[1])
			if err != nil {
				return nil, fmt.Errorf("the rule %s: %w", rule, err)
			}
			for _, address := range addresses {
				opens, err := ruleForRemote(m[1], address)
				if err != nil {
					return nil, fmt.Errorf("the rule %s: the remote of %s is %q: %w", rule, share.Source, withoutUser(address), err)
				}
				found = true
				if !slices.Contains(resolved, opens) {
					resolved = append(resolved, opens)
				}
			}
		}
		if !found {
			return nil, fmt.Errorf("the rule %s opens the remote %s of the repositories that are shared, and there is none: share a repository that has it, or write the repository's address, such as git:https://github.com/OWNER/REPOSITORY", rule, m[1])
		}
	}
	return resolved, nil
}

// remoteAddresses are from where the repository in a directory fetches, and where it
// pushes to; none if it is no repository. Git reads the text of one file and nothing
// else of the directory, in which somebody may have told it what to execute.
func remoteAddresses(dir, remote string) ([]string, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := root.OpenFile(".git/config", os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, fmt.Errorf("%s is a worktree or a submodule, whose configuration is elsewhere: write the repository's address, such as git:https://github.com/OWNER/REPOSITORY", dir)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(fmt.Errorf("%s/.git/config is no file", dir), err)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxGitConfig))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), gitPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", "config", "--file", "-", "--no-includes", "--null", "--get-regexp", `^remote\.`+regexp.QuoteMeta(remote)+`\.(url|pushurl)$`)
	cmd.Dir, cmd.Stdin = "/", bytes.NewReader(text)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_DIR=/dev/null"}
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() == 1 {
		return nil, nil // there is none of that name
	}
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("git is needed to read a repository's configuration: install it")
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s/.git/config: %w: %s", dir, err, strings.TrimSpace(complaints.String()))
	}
	var addresses []string
	for entry := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		if _, address, ok := strings.Cut(entry, "\n"); ok {
			addresses = append(addresses, address)
		}
	}
	return addresses, nil
}

// withoutUser is an address without who logs in there: that may hold a password, and is no
// part of where it is.
func withoutUser(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.User == nil {
		return address
	}
	u.User = nil
	return u.String()
}

// scpLike is an address of ssh without a scheme (git-fetch(1)).
var scpLike = regexp.MustCompile(`^(?:[^@/:]+@)?([A-Za-z0-9.-]+):([^:].*)$`)

// ruleForRemote is the rule that opens the repository at an address.
func ruleForRemote(remote, address string) (string, error) {
	if u, err := url.Parse(address); err == nil && u.Scheme != "" && u.Host != "" {
		if u.Scheme == "ssh" || u.Scheme == "git+ssh" {
			return "", sshRemote(remote, u.Hostname(), u.Port(), u.Path)
		}
		rule := "git:" + withoutUser(address)
		_, err := policy.ParseRule(rule)
		return rule, err
	}
	if m := scpLike.FindStringSubmatch(address); m != nil {
		return "", sshRemote(remote, m[1], "", m[2])
	}
	return "", errors.New("it is not on the network: share that directory as well, or write the address of another one, such as git:https://github.com/OWNER/REPOSITORY")
}

// sshRemote says what to do about a remote of which nobody sees which repository is
// asked for.
func sshRemote(remote, host, port, path string) error {
	if port == "" {
		port = "22"
	}
	https := "https://" + host + "/" + strings.TrimPrefix(path, "/")
	err := fmt.Errorf("by ssh, a rule cannot tell one repository from another: use https, as by git remote set-url %s %s, or open all that ssh reaches at that host", remote, https)
	return remedy.Add(err, remedy.Set, "allow", net.JoinHostPort(host, port))
}
