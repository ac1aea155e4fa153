package debian

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNPMHook runs the hook's script with stand-ins for chroot and npm.
func TestNPMHook(t *testing.T) {
	root, bin, home := t.TempDir(), t.TempDir(), t.TempDir()
	seen := filepath.Join(home, "seen")
	for name, script := range map[string]string{
		"npm": `echo https://registry.example/`,
		"chroot": `root="$1"; shift
echo "$*" >` + seen + `
cp "$root$NODE_EXTRA_CA_CERTS" ` + seen + `.ca
m="$root/usr/local/lib/node_modules"
mkdir -p "$m/claude/node_modules/claude-linux-x64" "$m/claude/node_modules/claude-linux-x64-musl" \
	"$m/codex/vendor/x86_64-unknown-linux-musl" "$root/tmp/npm-cache"`,
	} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ca := filepath.Join(home, "ca.pem")
	if err := errors.Join(os.WriteFile(ca, []byte("certificate"), 0o600), os.Mkdir(filepath.Join(root, "tmp"), 0o755)); err != nil {
		t.Fatal(err)
	}
	// As mmdebstrap runs a hook.
	cmd := exec.Command("sh", "-c", npmHook([]string{"@openai/codex@1.2.3"}), "exec", root)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "NODE_EXTRA_CA_CERTS="+ca, "NPM_CONFIG_REGISTRY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	argv, err := os.ReadFile(seen)
	if err != nil || !strings.HasSuffix(string(argv), "--registry=https://registry.example/ @openai/codex@1.2.3\n") {
		t.Errorf("npm was called with %q, %v", argv, err)
	}
	if data, err := os.ReadFile(seen + ".ca"); err != nil || string(data) != "certificate" {
		t.Errorf("inside, the extra certificate is %q, %v", data, err)
	}
	modules := filepath.Join(root, "usr/local/lib/node_modules")
	for name, want := range map[string]bool{
		filepath.Join(modules, "claude/node_modules/claude-linux-x64"):      true,
		filepath.Join(modules, "codex/vendor/x86_64-unknown-linux-musl"):    true,
		filepath.Join(modules, "claude/node_modules/claude-linux-x64-musl"): false,
		filepath.Join(root, "tmp/npm-cache"):                                false,
		filepath.Join(root, "tmp/extra-ca.pem"):                             false,
	} {
		if _, err := os.Stat(name); errors.Is(err, fs.ErrNotExist) == want {
			t.Errorf("%s: %v, wanted there: %v", name, err, want)
		}
	}
}
