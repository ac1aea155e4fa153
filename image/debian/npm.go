package debian

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// npmNames are the AI agents that --with knows, and their npm packages.
func npmNames() map[string]string {
	return map[string]string{
		"claude-code": "@anthropic-ai/claude-code",
		"gemini-cli":  "@google/gemini-cli",
		"codex":       "@openai/codex",
		"opencode":    "opencode-ai",
	}
}

// npmSpec turns NAME or NAME@VERSION into what npm install understands.
func npmSpec(with string) (string, error) {
	name, version, pinned := strings.Cut(with, "@")
	pkg, ok := npmNames()[name]
	if !ok {
		return "", fmt.Errorf("there is no AI agent %q: choose from %s", name, strings.Join(slices.Sorted(maps.Keys(npmNames())), ", "))
	}
	if !pinned {
		return pkg, nil
	}
	if version == "" || strings.ContainsFunc(version, notInVersion) {
		return "", fmt.Errorf("the AI agent %s: %q is not a version; write NAME@VERSION, such as %s@1.2.3", with, version, name)
	}
	return pkg + "@" + version, nil
}

func notInVersion(r rune) bool {
	return !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-+_", r)
}

// npmPackage is the package of a spec, without its version.
func npmPackage(spec string) string {
	if i := strings.LastIndex(spec, "@"); i > 0 {
		return spec[:i]
	}
	return spec
}

// Files in the room's /tmp, for npm.
const (
	certificatesFile = "extra-ca.pem"
	npmModules       = "usr/local/lib/node_modules/"
)

// supplyNPM puts what the hooks of npm take into the room.
func (o Options) supplyNPM(ctx context.Context, r *room, tool npmTool) error {
	client, err := registryClient()
	if err != nil {
		return err
	}
	registry := registryOf(os.Environ(), npmFiles())
	// Both for the packages' npm, in the new system as in the room.
	r.environ = append(r.environ, "NPM_CONFIG_REGISTRY="+registry, "NODE_EXTRA_CA_CERTS=/tmp/"+certificatesFile)
	step := o.Progress.Start("fetching npm "+tool.Version, 0)
	defer step.Fail()
	path, err := tool.fetch(ctx, o.CacheDir, registry, client)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	extra, err := extraCertificates(os.Getenv)
	if err != nil {
		return err
	}
	step.Done()
	return errors.Join(
		os.WriteFile(filepath.Join(r.given(), tool.file()), data, 0o644),
		os.WriteFile(filepath.Join(r.given(), certificatesFile), extra, 0o644), // empty is fine
	)
}

// unpackHook puts npm itself into the new system.
func (n npmTool) unpackHook() hook {
	return hook{"customize", fmt.Sprintf(`set -eu
cd "$1/usr/local"
mkdir -p bin lib/node_modules/npm
tar -xzf /tmp/%s -C lib/node_modules/npm --strip-components=1 --no-same-owner --no-same-permissions
ln -s ../lib/node_modules/npm/bin/npm-cli.js bin/npm
ln -s ../lib/node_modules/npm/bin/npx-cli.js bin/npx`, n.file())}
}

// npmHook installs specs in the new system, with its own npm. The host's choice
// of a registry and its extra certificate authorities apply to the download and
// do not stay in the image. The scripts of what the packages depend on do not
// run; those of the packages themselves do, because some put their program into
// its place so.
func npmHook(specs []string) string {
	var names []string
	for _, spec := range specs {
		names = append(names, npmPackage(spec))
	}
	return `set -eu
root="$1"
cp /tmp/` + certificatesFile + ` "$root/tmp/"
in_root() {
	HOME=/tmp npm_config_cache=/tmp/npm-cache chroot "$root" \
		npm "$@" --global --prefix /usr/local --no-fund --no-audit --no-update-notifier --loglevel=http
}
in_root install --ignore-scripts ` + strings.Join(specs, " ") + `
in_root rebuild --foreground-scripts ` + strings.Join(names, " ") + `
rm -rf "$root/tmp/npm-cache" "$root/tmp/` + certificatesFile + `" "$root"/usr/local/lib/node_modules/.package-lock.json`
}
