package debian

import (
	"crypto/sha512"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestNPMHook runs the hook's script with a stand-in for chroot.
func TestNPMHook(t *testing.T) {
	root, bin, seen := t.TempDir(), t.TempDir(), filepath.Join(t.TempDir(), "seen")
	script := strings.NewReplacer("ROOT", root, "SEEN", seen).Replace(`#!/bin/sh
[ "$1" = ROOT ] && [ "$HOME" = /tmp ] && [ -e ROOT/tmp/extra-ca.pem ] || exit 1
shift
echo "$*" >>SEEN
mkdir -p ROOT/tmp/npm-cache
`)
	if err := os.WriteFile(filepath.Join(bin, "chroot"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(root, "tmp"), 0o755); err != nil {
		t.Fatal(err)
	}
	given := t.TempDir()
	if err := os.WriteFile(filepath.Join(given, certificatesFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	hook := strings.ReplaceAll(npmHook([]string{"@openai/codex@1.2.3", "opencode-ai"}), "cp /tmp/", "cp "+given+"/")
	cmd := exec.Command("sh", "-c", hook, "exec", root) // as mmdebstrap runs a hook
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said, err := os.ReadFile(seen)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(said), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "npm install --ignore-scripts @openai/codex@1.2.3 opencode-ai --global") ||
		!strings.HasPrefix(lines[1], "npm rebuild --foreground-scripts @openai/codex opencode-ai --global") {
		t.Errorf("npm was called with %q", lines)
	}
	if left, _ := filepath.Glob(filepath.Join(root, "tmp/*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRegistryOfThisMachine(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	users := file("users", "//npm.example/:_authToken=secret\n# registry=https://no.example\n@scope:registry=https://scope.example\n registry = \"https://users.example/npm\"\n")
	machines := file("machines", "registry=https://machines.example\n")
	for _, test := range []struct {
		environ, files []string
		want           string
	}{
		{nil, nil, defaultRegistry},
		{nil, []string{filepath.Join(dir, "absent"), machines}, "https://machines.example"},
		{nil, []string{users, machines}, "https://users.example/npm"},
		{[]string{"npm_config_registry=https://lower.example"}, []string{users}, "https://lower.example"},
		{[]string{"NPM_CONFIG_REGISTRY=", "HOME=/x"}, []string{users}, "https://users.example/npm"},
	} {
		if got := registryOf(test.environ, test.files); got != test.want {
			t.Errorf("%q, %q: got %s, want %s", test.environ, test.files, got, test.want)
		}
	}
}

func TestNPMIsFetchedOnceAndChecked(t *testing.T) {
	const content = "npm itself"
	sum := sha512.Sum512([]byte(content))
	tool := npmTool{Version: "1.2.3", Integrity: "sha512-" + base64.StdEncoding.EncodeToString(sum[:])}
	asked, give := 0, content
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		if r.URL.Path != "/at/npm/-/npm-1.2.3.tgz" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(give)) // the test sees what arrives
	}))
	defer server.Close()
	dir := t.TempDir()
	for range 2 {
		path, err := tool.fetch(t.Context(), dir, server.URL+"/at/", server.Client())
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(path); err != nil || string(data) != content {
			t.Errorf("got %q, %v", data, err)
		}
	}
	if asked != 1 {
		t.Errorf("the registry was asked %d times", asked)
	}
	give = "something else"
	secret := strings.Replace(server.URL, "://", "://user:geheim@", 1)
	for registry, want := range map[string]string{secret + "/at": "is not the npm 1.2.3", server.URL: "404"} {
		_, err := tool.fetch(t.Context(), t.TempDir(), registry, server.Client())
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "~/.npmrc") || strings.Contains(err.Error(), "geheim") {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
