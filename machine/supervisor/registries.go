package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network/policy"
)

// registryCommands print, for each preset that is read in the guest, the URLs from which
// its package manager gets packages, whatever stands around them. They know no hosts, as each
// manager knows its own, but for Cargo's.
var registryCommands = map[string]string{
	// To read its settings is no stable part of it yet, in any release of the language. It does
	// not tell of its built-in registry, whose files are at another host than its index.
	"cargo": `cargo --version >/dev/null || exit
get() { RUSTC_BOOTSTRAP=1 cargo -Z unstable-options config get --format json "$1" | sed 's/sparse+//g'; }
get source
get registries
get source.crates-io | grep -q replace-with || echo https://index.crates.io https://static.crates.io`,
	"debian": `apt-get --print-uris update`,
	"go":     `go env GOPROXY; sum=$(go env GOSUMDB); test "$sum" = off || echo "https://${sum%%[+ ]*} ${sum#* }"`,
	"nix":    `nix --extra-experimental-features nix-command config show substituters`,
	"npm":    `npm config get registry`,
	// Of its built-in index, files are at another host.
	"pypi": `python3 -m pip config list | grep -F index || python3 -c 'from pip._internal.models.index import PyPI; print(PyPI.simple_url, "https://" + PyPI.file_storage_domain)'`,
}

const (
	// registryPatience is how long a package manager may take to say what it is set to, in
	// an emulated guest.
	registryPatience = 2 * time.Minute
	// maxRegistries is how many hosts one of them may name.
	maxRegistries = 16
)

// readRegistries opens what the guest's package managers are set to, where a rule says
// so: once, before the first command of the user's, in nobody's home and no project. From
// then on, the guest can change its settings, and it does not matter.
func (v *supervisor) readRegistries(ctx context.Context) error {
	presets := v.config.UnreadRegistries()
	if len(presets) == 0 || v.gateway == nil {
		return nil
	}
	c := v.config
	c.Registries = maps.Clone(c.Registries)
	if c.Registries == nil {
		c.Registries = map[string][]string{}
	}
	for _, preset := range presets {
		rules := v.registriesOf(ctx, preset)
		c.Registries[preset] = rules
		note := fmt.Sprintf("preset:%s opens nothing, as the guest has no such package manager, or it does not name a host: allow its host by name", preset)
		if len(rules) > 0 {
			note = fmt.Sprintf("preset:%s opens %s", preset, strings.Join(rules, ", "))
		}
		v.report(api.Report{Note: note})
	}
	if err := errors.Join(c.Validate(), v.gateway.SetRules(c.Rules())); err != nil {
		return fmt.Errorf("opening what the guest's package managers are set to: %w", err)
	}
	return v.record(func(current *machine.Config) { current.Registries = c.Registries })
}

// registriesOf returns the rules that open what a package manager is set to.
func (v *supervisor) registriesOf(ctx context.Context, preset string) []string {
	ctx, cancel := context.WithTimeout(ctx, registryPatience)
	defer cancel()
	cmd := v.agentClient().Command(ctx, "sh", "-c", registryCommands[preset])
	cmd.Dir, cmd.Env = "/", []string{"HOME=/nonexistent", "XDG_CONFIG_HOME=/nonexistent", "XDG_CACHE_HOME=/tmp"}
	out, err := cmd.Output()
	if err != nil {
		v.log.Info("a package manager does not say what it is set to", "preset", preset, "err", err)
	}
	return registryRules(string(out))
}

// registryRules returns the rules for the hosts of all URLs in a text.
func registryRules(text string) []string {
	rules := []string{}
	for word := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n,|'\"=", r) }) {
		u, err := url.Parse(word)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
			continue
		}
		rule := u.Host
		if port := u.Port(); port == "80" || port == "443" {
			rule = u.Hostname()
		}
		if parsed, err := policy.ParseRule(rule); err != nil || parsed.Reads() != "" || strings.ContainsAny(rule, "*/") {
			continue
		}
		if !slices.Contains(rules, rule) && len(rules) < maxRegistries {
			rules = append(rules, rule)
		}
	}
	return rules
}
