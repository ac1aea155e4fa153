package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

func TestSecretsOfClosedHostsAreTold(t *testing.T) {
	c := testConfig("a")
	c.Secrets = []string{"ONE@api.example.com,read.example.com:8443", "TWO@other.example.com,some.example.com"}
	for _, tt := range []struct {
		mode network.Mode
		want string
	}{
		{network.ModeAllowlist, "[{ONE read.example.com:8443} {TWO other.example.com}]"},
		{network.ModeAsk, "[]"}, // the user is asked
		{network.ModePublic, "[]"},
	} {
		c.Network, c.Allow = tt.mode, []string{"api.example.com", "https://some.example.com/v1/**"}
		if tt.mode == network.ModePublic {
			c.Allow = nil
		}
		if got := fmt.Sprint(c.ClosedSecrets()); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.mode, got, tt.want)
		}
	}
}

func TestSecretsInSharesAreRefused(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shared, key, link := filepath.Join(dir, "shared"), filepath.Join(dir, "key"), filepath.Join(dir, "link")
	for _, err := range []error{
		os.Mkdir(shared, 0o700), os.WriteFile(key, nil, 0o600), os.WriteFile(filepath.Join(shared, "key"), nil, 0o600),
		os.Symlink(filepath.Join(shared, "key"), link), os.Symlink(key, filepath.Join(shared, "link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", dir)
	c := testConfig("a")
	c.Shares = []virtiofs.Share{{Source: shared}}
	for path, bad := range map[string]bool{
		key: false, filepath.Join(dir, "shared-too"): false,
		filepath.Join(shared, "key"): true, filepath.Join(shared, "absent"): true, filepath.Join(dir, "absent", "..", "shared", "x"): true,
		link:                          true, // the guest reads what it leads to
		"~/shared/key":                true,
		"~/key":                       false,
		filepath.Join(shared, "link"): true, // the guest chooses where it leads
	} {
		c.Secrets = []string{"KEY=file:" + path + "@api.example.com"}
		if err := c.checkSecretFiles(); (err != nil) != bad || bad && !strings.Contains(err.Error(), "so that the guest has it anyway") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
