package debian

import (
	"fmt"
	"maps"
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
		return "", fmt.Errorf("there is no AI agent %q for --with: choose from %s", name, strings.Join(slices.Sorted(maps.Keys(npmNames())), ", "))
	}
	if !pinned {
		return pkg, nil
	}
	if version == "" || strings.ContainsFunc(version, notInVersion) {
		return "", fmt.Errorf("--with %s: %q is not a version; write NAME@VERSION, such as %s@1.2.3", with, version, name)
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

// npmHook installs specs in the new system, with its own npm. The host's choice
// of a registry and its extra certificate authorities apply to the download and
// do not stay in the image.
func npmHook(specs []string) string {
	return `set -eu
registry="${NPM_CONFIG_REGISTRY:-$(npm config get registry 2>/dev/null || true)}"
set -- "$1" ` + strings.Join(specs, " ") + `
root="$1"; shift
if [ -r "${NODE_EXTRA_CA_CERTS:-}" ]; then
	cp "$NODE_EXTRA_CA_CERTS" "$root/tmp/extra-ca.pem"
	export NODE_EXTRA_CA_CERTS=/tmp/extra-ca.pem
else
	unset NODE_EXTRA_CA_CERTS
fi
HOME=/tmp npm_config_cache=/tmp/npm-cache chroot "$root" npm install --global --prefix /usr/local \
	--no-fund --no-audit --no-update-notifier --loglevel=http ${registry:+--registry="$registry"} "$@"
# Debian's npm does not read which libc a package is for, and fetches the
# hundreds of megabytes for the other one, too.
find "$root/usr/local/lib/node_modules" -type d -name '*-linux-*-musl' -prune -exec rm -rf {} +
rm -rf "$root/tmp/npm-cache" "$root/tmp/extra-ca.pem" "$root"/usr/local/lib/node_modules/.package-lock.json`
}
