package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/authority"
)

func TestOnlyCertificatesOfTheHostAreForTheGuest(t *testing.T) {
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	b, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	both, err := a.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	withKey := write("a.crt", "a comment\n"+string(both))
	write("b.crt", string(b.Certificate()))
	for _, c := range []struct {
		from, added, want string
	}{
		{"", "*.crt", ""},
		{withKey, "", string(a.Certificate())},
		{TrustSystem, "*.crt", string(a.Certificate()) + string(b.Certificate())},
	} {
		got, err := readHostCA(c.from, []string{filepath.Join(dir, c.added)})
		if err != nil || string(got) != c.want {
			t.Errorf("%+v: %s, %v", c, got, err)
		}
	}
	for from, want := range map[string]string{
		TrustSystem:                  "no certificate was added to this machine",
		filepath.Join(dir, "absent"): "no such file",
		write("text", "x"):           "no certificate in PEM",
		write("bad", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"): "bad: x509",
		write("large", strings.Repeat(string(a.Certificate()), 1000)):                  "more than",
	} {
		if got, err := readHostCA(from, []string{filepath.Join(dir, "none*")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %.80s, %v, want %s", from, got, err, want)
		}
	}
}
