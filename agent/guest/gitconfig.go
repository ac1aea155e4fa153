//go:build linux

package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/boot"
)

const (
	// systemGitConfig is git's file for all users. Only there, and in the users' own, does git look for directories
	// to be trusted (git-config(1), safe.directory).
	systemGitConfig = "/etc/gitconfig"

	// sharesGitConfig names the shares, anew at each boot. What /etc/gitconfig has of it is a reference, so that an
	// image's own settings stay and a disk does not collect the shares of the past.
	sharesGitConfig = "/run/sandbox-agent.gitconfig"

	// ignoredInShares is the beginning of the names of files for single shares: settings of git, and patterns of what it
	// ignores there.
	ignoredInShares = "/run/sandbox-agent.git."
)

// trustShares lets git work in repositories of the shares for every user of the guest. A share belongs to the
// guest's user, or to nobody where the host has others' files in it; for all others, root included, git refuses to
// work there ("dubious ownership"), because on a machine of several people a repository may be a trap. Here there is
// one, who has chosen the directories.
func trustShares(root string, user boot.User, mounts []agent.Mount) error {
	var text, conditions strings.Builder
	text.WriteString("[safe]\n")
	for _, m := range mounts {
		target := shareTarget(user.Home, m.Target)
		if target == user.Home || m.File != "" {
			continue
		}
		// Repositories below it, for git 2.46 and newer.
		fmt.Fprintf(&text, "\tdirectory = %s\n\tdirectory = %s\n", gitValue(target), gitValue(strings.TrimSuffix(target, "/")+"/*"))
		if m.Unreadable == "" {
			continue
		}
		settings, err := ignoreUnreadable(root, m)
		if err != nil {
			return err
		}
		fmt.Fprintf(&conditions, "[includeIf %s]\n\tpath = %s\n", gitValue("gitdir:"+gitPattern.Replace(target)+"/"), gitValue(settings))
	}
	text.WriteString(conditions.String())
	if err := replaceFile(filepath.Join(root, sharesGitConfig), text.String(), 0o644); err != nil {
		return fmt.Errorf("cannot tell git which directories are shares: %w", err)
	}
	return includeInGitConfig(filepath.Join(root, systemGitConfig))
}

// ignoreUnreadable writes settings of git by which it ignores what cannot be read in a share, and returns their path.
func ignoreUnreadable(root string, m agent.Mount) (settings string, err error) {
	settings = ignoredInShares + m.Tag
	patterns := settings + ".ignore"
	if err = replaceFile(filepath.Join(root, patterns), m.Unreadable, 0o644); err == nil {
		err = replaceFile(filepath.Join(root, settings), "[core]\n\texcludesFile = "+gitValue(patterns)+"\n", 0o644)
	}
	if err != nil {
		return "", fmt.Errorf("cannot tell git what is not readable in a share: %w", err)
	}
	return settings, nil
}

// gitPattern makes a pattern for a path as it is.
var gitPattern = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// gitValue quotes a value of git's configuration.
func gitValue(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\t", `\t`).Replace(s) + `"`
}

func includeInGitConfig(path string) error {
	const include = "[include]\n\tpath = " + sharesGitConfig + "\n"
	// A link belongs to a system that makes its /etc anew from its own description, as NixOS does.
	if info, err := os.Lstat(path); err == nil && !info.Mode().IsRegular() {
		return nil
	}
	old, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("cannot read git's settings: %w", unwrapPath(err))
	}
	if strings.Contains(string(old), sharesGitConfig) {
		return nil
	}
	if len(old) > 0 && !strings.HasSuffix(string(old), "\n") {
		old = append(old, '\n')
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return unwrapPath(err)
	}
	if err := replaceFile(path, string(old)+include, 0o644); err != nil {
		return fmt.Errorf("cannot tell git which directories are shares: %w", err)
	}
	return nil
}
