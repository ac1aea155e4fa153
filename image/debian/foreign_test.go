package debian

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestEmulatorThatTheKernelKnows(t *testing.T) {
	// As the kernel shows it.
	const entry = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n"
	for name, test := range map[string]struct {
		entry string
		want  bool
	}{
		"opened beforehand":             {entry, true},
		"lost behind chroot":            {strings.Replace(entry, "POF", "PO", 1), false},
		"switched off":                  {strings.Replace(entry, "enabled", "disabled", 1), false},
		"for another processor":         {strings.Replace(entry, "00b7", "00f3", 1), false},
		"no entry but the two switches": {"enabled\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range map[string]string{"qemu-aarch64": test.entry, "status": "enabled\n"} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := isRegistered(dir, aarch64Magic); got != test.want {
				t.Errorf("got %t", got)
			}
		})
	}
}

func TestEmulatorForOurOwnProcessor(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if path, err := emulator(runtime.GOARCH, t.TempDir()); path != "" || err != nil {
		t.Errorf("got %q, %v", path, err)
	}
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	if path, err := emulator(other, t.TempDir()); path != "" || err == nil {
		t.Errorf("got %q, %v", path, err)
	}
}

func TestEmulatorIsAnnouncedFirst(t *testing.T) {
	in, err := Options{Suite: "trixie", Arch: "aarch64", With: []string{"codex"}, Mirrors: []string{"https://mirror.example/debian"}}.resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	before := in.digest()
	text := strings.Join(installArgs(in, "/usr/bin/qemu-aarch64"), "\n")
	if !strings.Contains(text, "--skip=check/qemu") || strings.Index(text, "-hook=") != strings.Index(text, "--setup-hook=")+len("--setup") {
		t.Errorf("the arguments are\n%s", text)
	}
	if !strings.Contains(text, `'%s' ':sandbox-aarch64:M::\x7f\x45\x4c\x46\x02\x01`) || !strings.Contains(text, ":/usr/bin/qemu-aarch64:FP'") {
		t.Errorf("the kernel is told\n%s", text)
	}
	if in.digest() != before {
		t.Error("where the emulator is changes what the image is taken for")
	}
}
