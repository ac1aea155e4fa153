package supervisor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/policy"
)

func TestRegistriesAreTheHostsOfURLs(t *testing.T) {
	for text, want := range map[string][]string{
		"https://registry.npmjs.org/\n": {"registry.npmjs.org"},
		"http://deb.debian.org/debian\nhttp://deb.debian.org/debian\nhttp://mirror.example:3142/debian-security\n":       {"deb.debian.org", "mirror.example:3142"},
		"https://proxy.golang.org,direct\nhttps://sum.golang.org\n":                                                      {"proxy.golang.org", "sum.golang.org"},
		"https://off\noff|direct\nhttps://\n":                                                                            {"off"},
		"global.index-url='https://user:secret@pypi.example/simple'\n:env:.extra-index-url=\"http://10.1.2.3:8081/x\"\n": {"pypi.example", "10.1.2.3:8081"},
		"https://cache.nixos.org/ https://a.cachix.org":                                                                  {"cache.nixos.org", "a.cachix.org"},
		"file:///srv/debian cdrom:[x]/ undefined \x1b[2J https://*.evil.example/ https://a\x1b.example/ https://[::1]/":  {},
		"": {},
	} {
		if got := registryRules(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	var many strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&many, "https://h%d.example/\n", i)
	}
	if got := registryRules(many.String()); len(got) != maxRegistries {
		t.Errorf("there are %d", len(got))
	}
}

// What Cargo is asked is as Cargo 1.65 answers.
func TestCargoIsAskedForItsRegistries(t *testing.T) {
	for answers, want := range map[string][]string{
		"": {"index.crates.io", "static.crates.io"},
		`source) echo '{"source":{"crates-io":{"replace-with":"mirror"},"mirror":{"registry":"sparse+https://mirror.example/index/"}}}' ;;
		source.crates-io) echo '{"source":{"crates-io":{"replace-with":"mirror"}}}' ;;`: {"mirror.example"},
		`source) echo '{"source":{"crates-io":{"replace-with":"vendored"},"vendored":{"directory":"vendor"}}}' ;;
		source.crates-io) echo '{"source":{"crates-io":{"replace-with":"vendored"}}}' ;;`: {},
		`registries) echo '{"registries":{"own":{"index":"sparse+https://own.example:8443/i/"}}}' ;;`: {"own.example:8443", "index.crates.io", "static.crates.io"},
	} {
		dir := t.TempDir()
		script := "#!/bin/sh\ntest \"$1\" = --version && exit\ntest \"$RUSTC_BOOTSTRAP $1 $2 $3 $4 $5 $6\" = '1 -Z unstable-options config get --format json' || exit 2\n" +
			"case $7 in\n" + answers + "\n*) exit 101 ;;\nesac\n"
		if err := os.WriteFile(filepath.Join(dir, "cargo"), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		if got := registryRules(shellOutput(t, registryCommands["cargo"], dir)); !slices.Equal(got, want) {
			t.Errorf("%s\nopens %q, want %q", answers, got, want)
		}
	}
	if got := shellOutput(t, registryCommands["cargo"], t.TempDir()); got != "" {
		t.Errorf("without Cargo, there is %q", got)
	}
}

// shellOutput is what a command prints that finds programs in dir too, and Cargo nowhere else.
func shellOutput(t *testing.T, command, dir string) string {
	t.Helper()
	for _, name := range []string{"sed", "grep"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=" + dir}
	out, _ := cmd.Output() // its status is nobody's business
	return string(out)
}

func TestEachPresetThatIsReadHasACommand(t *testing.T) {
	for _, p := range policy.Presets() {
		if _, ok := registryCommands[p.Name]; ok != p.Read {
			t.Errorf("%s is read: %v, and has a command: %v", p.Name, p.Read, ok)
		}
	}
}
