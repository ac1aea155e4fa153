package machine

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/secret"
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

func TestTheEndpointsOfAWSAreManyHosts(t *testing.T) {
	c := testConfig("a")
	c.Network, c.Secrets = network.ModeAllowlist, []string{"aws:work"}
	for rule, want := range map[string]string{"example.com": "[{AWS_ACCESS_KEY_ID *.amazonaws.com}]", "sts.eu-central-1.amazonaws.com": "[]", "*.api.aws": "[]", "https://a.s3.amazonaws.com/b/**": "[]"} {
		c.Allow = []string{rule}
		if got := fmt.Sprint(c.ClosedSecrets()); got != want {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
	c.Secrets = append(c.Secrets, "AWS_REGION@a.example")
	if _, err := c.SecretSpecs(); err == nil || !strings.Contains(err.Error(), "are to be the variable AWS_REGION") {
		t.Errorf("a variable twice: %v", err)
	}
}

// TestAProfileOfAWSSignsForTheGuest has a profile whose key is in a file, as the SDK reads it.
func TestAProfileOfAWSSignsForTheGuest(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"AWS_SHARED_CREDENTIALS_FILE": "[work]\naws_access_key_id = AKIAREALREALREALREAL\naws_secret_access_key = real-secret\n", "AWS_CONFIG_FILE": "[profile work]\nregion = eu-central-1\n"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv(name, path)
	}
	t.Setenv("AWS_REGION", "")
	h := testHost(t)
	c := testConfig("a")
	c.Network, c.Secrets = network.ModePublic, []string{"aws:other"}
	if _, err := h.Secrets(t.Context(), c); err == nil || !strings.Contains(err.Error(), "the profile other of AWS") {
		t.Errorf("without the profile: %v", err)
	}
	c.Secrets = []string{"aws:work"}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := s.Secrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	names, files, err := s.openSecrets(c, secrets)
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(files)
	value, err := secret.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	if key, err := value.AWS(); err != nil || fmt.Sprint(names) != "[AWS_ACCESS_KEY_ID]" || key.AccessKeyID != "AKIAREALREALREALREAL" || key.SecretAccessKey != "real-secret" {
		t.Errorf("the network is told of %v: %v", names, err)
	}
	c, err = s.Config()
	if err != nil {
		t.Fatal(err)
	}
	variables, err := c.Variables()
	if text := strings.Join(variables, " "); err != nil || strings.Contains(strings.ToLower(text), "real") ||
		!regexp.MustCompile(`^AWS_ACCESS_KEY_ID=AKIA[A-Z2-7]{16} AWS_DEFAULT_REGION=eu-central-1 AWS_REGION=eu-central-1 AWS_SECRET_ACCESS_KEY=[A-Za-z0-9]{40}$`).MatchString(text) {
		t.Errorf("the guest has %q, %v", text, err)
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
	c.Secrets = []string{"aws:work"}
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "")
	for path, bad := range map[string]bool{"": false, key: false, filepath.Join(shared, "config"): true} { // which names programs
		t.Setenv("AWS_CONFIG_FILE", path)
		if err := c.checkSecretFiles(); (err != nil) != bad {
			t.Errorf("profiles in %s: %v", path, err)
		}
	}
}

// TestHelperReadsSecrets is the program of the test below: it reports what it has got.
func TestHelperReadsSecrets(t *testing.T) {
	if flag.NArg() == 0 {
		t.Skip("it is run by TestSecretsReachTheSupervisorAndNoFile")
	}
	request, err := api.ReadStart(os.NewFile(api.FDStart, "request"))
	if err != nil {
		t.Fatal(err)
	}
	say := api.NewReporter(os.NewFile(api.FDReport, "report"))
	for i, name := range request.Secrets {
		value, err := secret.ReadFile(os.NewFile(uintptr(api.FDSecrets+i), "secret"))
		say(api.Report{Note: fmt.Sprint(name, " ", value.Reveal(), " ", err)})
	}
	say(api.Report{Stage: StageAgent})
}

func TestSecretsReachTheSupervisorAndNoFile(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.Network, c.Secrets = network.ModePublic, []string{"ONE=env:SOME_KEY@api.example.com", "TWO=file:" + filepath.Join(t.TempDir(), "key") + "@other.example.com"}
	_, file, _ := strings.Cut(c.Secrets[1], "file:")
	file, _, _ = strings.Cut(file, "@")
	if err := os.WriteFile(file, []byte("value-of-two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	s.host.Supervisor = []string{os.Args[0], "-test.run=TestHelperReadsSecrets$", "--", "helper"}
	if _, err := s.Start(t.Context(), StartOptions{Until: StageAgent}); err == nil || !strings.Contains(err.Error(), "ONE") || strings.Contains(err.Error(), "TWO") {
		t.Errorf("without one of them: %v", err)
	}
	t.Setenv("SOME_KEY", "value-of-one")
	var first map[string]string
	for range 2 {
		var notes []string
		if _, err := s.Start(t.Context(), StartOptions{Until: StageAgent, Note: func(n string) { notes = append(notes, n) }}); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(notes); got != "[ONE value-of-one <nil> TWO value-of-two <nil>]" {
			t.Errorf("the supervisor has got %s", got)
		}
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		c, err := s.Config()
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Placeholders) != 2 || c.Placeholders["ONE"] == c.Placeholders["TWO"] || first != nil && !maps.Equal(c.Placeholders, first) {
			t.Errorf("placeholders %v, and those of before %v", c.Placeholders, first)
		}
		first = c.Placeholders
	}
	err = filepath.WalkDir(s.Files().Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte("value-of-")) {
			t.Errorf("%s has a secret in it", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// Those that were got before are not got again.
	secrets, err := s.Secrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%v %+v %#v", StartOptions{Secrets: secrets}, secrets, secrets); strings.Contains(text, "value-of-") {
		t.Errorf("a secret is shown: %s", text)
	}
	os.Unsetenv("SOME_KEY")
	if _, err := s.Start(t.Context(), StartOptions{Until: StageAgent, Secrets: secrets}); err != nil {
		t.Error(err)
	}
}

func TestARevokedSecretIsGotNoMore(t *testing.T) {
	h := testHost(t)
	c := testConfig("a")
	c.Network, c.Secrets = network.ModePublic, []string{"ONE=env:SOME_KEY@api.example.com", "TWO=env:OTHER_KEY@api.example.com"}
	s, err := h.Create(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTHER_KEY", "value-of-two")
	if _, err := s.Secrets(t.Context()); err == nil {
		t.Error("nothing is missing without the first one")
	}
	if err := s.RevokeSecret(t.Context(), "THREE"); err == nil || !strings.Contains(err.Error(), "has no secret THREE") {
		t.Errorf("one that there is not: %v", err)
	}
	for range 2 {
		if err := s.RevokeSecret(t.Context(), "ONE"); err != nil {
			t.Fatal(err)
		}
	}
	secrets, err := s.Secrets(t.Context())
	if err != nil || len(secrets) != 1 || secrets["TWO"].Value.Reveal() != "value-of-two" {
		t.Errorf("%d secrets, %v", len(secrets), err)
	}
	if c, err := s.Config(); err != nil || fmt.Sprint(c.Revoked) != "[ONE]" {
		t.Errorf("%v, %v", c.Revoked, err)
	}
}
