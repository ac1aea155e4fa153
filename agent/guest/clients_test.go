//go:build linux

package guest

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sourcery-zone/sandbox/network/authority"
)

// TestClientsBelieveWhatTheyAreTold has clients of several kinds, those that this machine has, ask a server of the sandbox's authority.
func TestClientsBelieveWhatTheyAreTold(t *testing.T) {
	vouching, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	asked := map[string]bool{}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked[strings.Split(r.URL.Path, "/")[1]] = true
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, "{}")
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // which tells of clients that do not believe it
	server.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return vouching.Leaf("localhost") }}
	server.StartTLS()
	t.Cleanup(server.Close)
	_, port, _ := strings.Cut(server.Listener.Addr().String(), ":")
	address := "https://localhost:" + port + "/"

	root := t.TempDir()
	if err := trustCertificates(root, vouching.Certificate()); err != nil {
		t.Fatal(err)
	}
	told := certificateSettings(root)
	for i := range told {
		told[i] = strings.ReplaceAll(told[i], "=/etc/", "="+root+"/etc/")
	}
	script := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fetch := func(name string) string { return script("client.mjs", "await fetch('"+address+name+"')") }
	https := func(name string) string {
		return script("client.mjs", "import https from 'node:https'; https.get('"+address+name+"', (r) => r.resume())")
	}
	crate := filepath.Dir(script("Cargo.toml", "[package]\nname = 'a'\nversion = '0.1.0'\n[dependencies]\nb = { version = '1', registry = 'r' }\n[lib]\npath = 'a.rs'\n"))
	for _, c := range []struct {
		name string
		args []string
	}{
		{"curl", []string{"curl", "-sS", address + "curl"}},
		{"git", []string{"git", "ls-remote", address + "git"}},
		{"urllib", []string{"python3", "-c", "import urllib.request as u; u.urlopen('" + address + "urllib')"}},
		{"requests", []string{"python3", "-c", "import requests; requests.get('" + address + "requests')"}},
		{"httpx", []string{"python3", "-c", "import httpx; httpx.get('" + address + "httpx')"}},
		{"node-fetch", []string{"node", fetch("node-fetch")}},
		{"node-https", []string{"node", https("node-https")}},
		{"deno-fetch", []string{"deno", "run", "-A", fetch("deno-fetch")}},
		{"deno-https", []string{"deno", "run", "-A", https("deno-https")}},
		{"deno-import", []string{"deno", "run", "-A", script("client.mjs", "import '"+address+"deno-import/a.mjs'")}},
		{"bun-fetch", []string{"bun", fetch("bun-fetch")}},
		{"bun-https", []string{"bun", https("bun-https")}},
		{"cargo", []string{"cargo", "--config", "registries.r.index='sparse+" + address + "cargo/'", "fetch", "--manifest-path", filepath.Join(crate, "Cargo.toml")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			run := func(settings []string, args ...string) ([]byte, error) {
				cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
				cmd.Env = append(settings, "HOME="+home, "CARGO_HOME="+home, "CARGO_NET_RETRY=0", "DENO_DIR="+home, "GIT_TERMINAL_PROMPT=0")
				for _, name := range []string{"PATH", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"} {
					if value, ok := os.LookupEnv(name); ok {
						cmd.Env = append(cmd.Env, name+"="+value)
					}
				}
				return cmd.CombinedOutput()
			}
			there := []string{c.args[0], "--version"}
			if c.args[0] == "python3" {
				module, _, _ := strings.Cut(c.args[2], ";")
				there = []string{"python3", "-c", module}
			}
			if text, err := run(nil, there...); err != nil {
				t.Skipf("to test it, install %s: %v %s", c.name, err, text)
			}
			for _, settings := range [][]string{nil, told} {
				text, _ := run(slices.Clone(settings), c.args...) // what it makes of the answer is its own affair
				mu.Lock()
				got := asked[c.name]
				mu.Unlock()
				if got != (settings != nil) {
					t.Fatalf("told %q, it has asked: %v\n%s", settings, got, text)
				}
			}
		})
	}
}
