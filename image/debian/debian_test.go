package debian

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	goerofs "github.com/erofs/go-erofs"

	"github.com/sourcery-zone/sandbox/image/assemble"
	"github.com/sourcery-zone/sandbox/image/rootfs"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

func TestMasksHaveReasonsAndNoDoubles(t *testing.T) {
	for name, table := range map[string][]mask{"masks": units().Masks, "generators": units().Generators} {
		seen := map[string]bool{}
		for _, m := range table {
			if seen[m.Unit] {
				t.Errorf("%s: %s is there twice", name, m.Unit)
			}
			seen[m.Unit] = true
			if m.Unit == "" || len(m.Reason) < 5 {
				t.Errorf("%s: %q has the reason %q", name, m.Unit, m.Reason)
			}
			if m.Only != "" && m.Only != "debian" {
				t.Errorf("%s: %s is masked only in %q", name, m.Unit, m.Only)
			}
		}
	}
}

func TestWhatASandboxNeedsIsNotMasked(t *testing.T) {
	for _, m := range units().Masks {
		switch m.Unit {
		case "dbus.service", "dbus.socket", "multi-user.target", "basic.target", "sysinit.target",
			"systemd-journald.service", "systemd-tmpfiles-setup.service", "systemd-sysctl.service",
			"systemd-poweroff.service", "poweroff.target", "shutdown.target":
			t.Errorf("%s is masked (%s)", m.Unit, m.Reason)
		}
	}
}

func TestOverlay(t *testing.T) {
	entries := map[string]rootfs.Entry{}
	for _, e := range overlay() {
		if _, ok := entries[e.Name]; ok || strings.HasPrefix(e.Name, "/") {
			t.Errorf("%s is there twice or absolute", e.Name)
		}
		entries[e.Name] = e
	}
	for _, m := range units().Masks {
		if e := entries["etc/systemd/system/"+m.Unit]; e.Link != "/dev/null" {
			t.Errorf("%s is not masked but %+v", m.Unit, e)
		}
	}
	if e := entries["etc/machine-id"]; e.Data != "" || e.Mode != 0o444 || e.Link != "" {
		t.Errorf("the machine id is %+v", e)
	}
	sudoers := entries["etc/sudoers.d/sandbox"]
	if sudoers.Mode != 0o440 || strings.Count(sudoers.Data, "NOPASSWD") != 1 || strings.Contains(sudoers.Data, "ALL:ALL") {
		t.Errorf("sudoers: %+v", sudoers)
	}
	if !strings.Contains(entries["etc/systemd/journald.conf.d/sandbox.conf"].Data, "Storage=volatile") {
		t.Error("the journal is not volatile")
	}
	if !strings.Contains(entries["etc/zsh/zshrc"].Data, "zsh-newuser-install() { : }") {
		t.Error("zsh asks new users")
	}
}

func TestInstallArgs(t *testing.T) {
	in, err := Options{Suite: "trixie", Arch: "aarch64", Packages: []string{"golang", "git"}, With: []string{"codex@0.50.0", "claude-code"}, Mirrors: []string{"https://mirror.example/debian"}}.resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got := installArgs(in, "")
	include := slices.IndexFunc(got, func(a string) bool { return strings.HasPrefix(a, "--include=") })
	packages := strings.Split(strings.TrimPrefix(got[include], "--include="), ",")
	if !slices.IsSorted(packages) || !slices.Contains(packages, "golang") || !slices.Contains(packages, "linux-image-cloud-arm64") ||
		len(slices.Compact(slices.Clone(packages))) != len(packages) {
		t.Errorf("packages: %q", packages)
	}
	npm := slices.IndexFunc(got, func(a string) bool {
		return strings.Contains(a, "install --ignore-scripts @anthropic-ai/claude-code @openai/codex@0.50.0")
	})
	if npm < 1 || !strings.Contains(got[npm], "rebuild --foreground-scripts @anthropic-ai/claude-code @openai/codex\n") || !strings.Contains(got[npm-1], "tar -xzf /tmp/npm-") {
		t.Fatalf("npm: %q", got)
	}
	got = slices.Delete(got, npm-1, npm+1)
	got = slices.Delete(got, include, include+1)
	want := []string{
		"--mode=root", "--variant=essential", "--architectures=arm64", "--components=main", "--format=tar",
		"--skip=output/dev,output/mknod", "--skip=chroot/mount/sys",
		`--aptopt=APT::Install-Recommends "false"`,
		`--aptopt=Acquire::Languages "none"`,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-include=/usr/share/doc/*/copyright",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/lintian/*",
		`--essential-hook=mkdir -p "$1/usr/share/man/man1" "$1/usr/share/man/man7"`,
		`--customize-hook=chroot "$1" useradd --uid 1000 --user-group --no-create-home --home-dir /home/agent --shell /usr/bin/zsh --password '*' agent`,
		"trixie", "-",
		"deb https://mirror.example/debian trixie main", "deb https://mirror.example/debian trixie-updates main",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestResolveRefusesNonsense(t *testing.T) {
	for want, o := range map[string]Options{
		`no architecture "sparc"`:                  {Suite: "trixie", Arch: "sparc"},
		`"rm -rf" is not the name of a Debian pac`: {Suite: "trixie", Arch: "x86_64", Packages: []string{"rm -rf"}},
		`"-o=x" is not the name`:                   {Suite: "trixie", Arch: "x86_64", Packages: []string{"-o=x"}},
		`"a,b" is not the name`:                    {Suite: "trixie", Arch: "x86_64", Packages: []string{"a,b"}},
		`name of a suite is empty`:                 {Arch: "x86_64"},
		`no AI agent "gpt": choose from claude-code, codex, gemini-cli, opencode`: {Suite: "trixie", Arch: "x86_64", With: []string{"gpt"}},
		`"" is not a version`:               {Suite: "trixie", Arch: "x86_64", With: []string{"codex@"}},
		`"1; reboot" is not a version`:      {Suite: "trixie", Arch: "x86_64", With: []string{"codex@1; reboot"}},
		"[leave-out bare]":                  {Suite: "trixie", Arch: "x86_64", Bare: true, With: []string{"codex"}},
		`the mirror "mirror.example" is ne`: {Suite: "trixie", Arch: "x86_64", Mirrors: []string{"mirror.example"}},
	} {
		if _, err := o.resolve(t.TempDir()); err == nil || !strings.Contains(fmt.Sprint(err, remedy.Of(err)), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestBareImageHasNoTools(t *testing.T) {
	in, err := Options{Suite: "trixie", Arch: "aarch64", Bare: true, Packages: []string{"jq"}}.resolve(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(installArgs(in, ""), "\n")
	for _, absent := range []string{"npm", "zsh", "vim", "git"} {
		if strings.Contains(text, absent) {
			t.Errorf("there is %s in\n%s", absent, text)
		}
	}
	if !slices.Contains(in.Packages, "jq") || !slices.Contains(in.Packages, "systemd-sysv") || !strings.Contains(text, "--shell /bin/bash") {
		t.Errorf("the arguments are\n%s", text)
	}
}

func TestDigestOfInputs(t *testing.T) {
	digest := func(o Options) string {
		o.Arch = "x86_64"
		o, err := o.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		in, err := o.resolve(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		return in.digest()
	}
	base := digest(Options{})
	for name, o := range map[string]Options{
		"order of packages": {Packages: []string{"jq", "golang"}},
		"repetition":        {Packages: []string{"golang", "jq", "jq", "git"}},
	} {
		if digest(o) != digest(Options{Packages: []string{"golang", "jq"}}) {
			t.Errorf("the %s changes the digest", name)
		}
	}
	for name, o := range map[string]Options{
		"package": {Packages: []string{"jq"}}, "suite": {Suite: "sid"}, "AI agent": {With: []string{"codex"}}, "set of tools": {Bare: true},
		"epoch": {Epoch: time.Unix(1, 0)}, "mirror": {Mirrors: []string{"https://m.example/debian"}},
	} {
		if digest(o) == base {
			t.Errorf("another %s has the same digest", name)
		}
	}
	if digest(Options{Name: "other", Agent: "/x", CacheDir: "/y", Force: true}) != base {
		t.Error("what does not matter changes the digest")
	}
	secret := digest(Options{Mirrors: []string{"https://u:geheim@m.example/debian"}})
	if secret != digest(Options{Mirrors: []string{"https://m.example/debian"}}) {
		t.Error("a mirror's password is part of the digest")
	}
}

func TestHostSources(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing": {nil, nil},
		"deb822": {
			map[string]string{"sources.list.d/debian.sources": "# a comment\nTypes: deb\nURIs: https://m.example/debian\nSuites: bookworm bookworm-updates\nComponents: main contrib\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\nURIs: https://m.example/debian-security/\nSuites: bookworm-security\nComponents: main\n"},
			[]string{"deb https://m.example/debian trixie main", "deb https://m.example/debian trixie-updates main", "deb https://m.example/debian-security/ trixie-security main"},
		},
		"one line each": {
			map[string]string{"sources.list": "deb-src http://a.example/debian sid main\n# deb http://b.example/debian sid main\ndeb [arch=amd64 signed-by=/x/debian-archive-keyring.gpg] http://c.example/debian/ sid main\n"},
			[]string{"deb http://c.example/debian/ trixie main", "deb http://c.example/debian/ trixie-updates main"},
		},
		"others' archives": {
			map[string]string{
				"sources.list.d/u.list":    "deb http://m.example/ubuntu noble main\ndeb https://docker.example/linux/debian bookworm stable\ndeb [signed-by=/x/other.gpg] https://o.example/debian bookworm main\n",
				"sources.list.d/o.sources": "Types: deb\nURIs: https://m.example/debian\nSuites: sid\nComponents: main\nEnabled: no\n",
				"sources.list.d/old.save":  "deb http://c.example/debian sid main\n",
			},
			nil,
		},
	} {
		dir := t.TempDir()
		for file, text := range c.files {
			file = filepath.Join(dir, file)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if got := hostSources(dir, "trixie"); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if got := mirrorSources("https://m.example/debian", "sid"); len(got) != 1 {
		t.Errorf("sid has no updates, but got %q", got)
	}
}

func TestArchivesThatAreFilesAreShown(t *testing.T) {
	got := localArchives([]string{
		"deb https://m.example/debian trixie main", "deb [trusted=yes] file:/srv/debs ./",
		"deb file:///srv/debs/ trixie main", "deb copy:/mnt/a%20b trixie main",
	})
	if want := []string{"/srv/debs", "/mnt/a b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestNewestDate(t *testing.T) {
	got, err := newest("Sat, 21 Nov 2026 00:53:03 UTC\nSun, 22 Nov 2026 02:09:05 UTC\nSat, 21 Nov 2026 09:15:44 UTC\n")
	if want := time.Date(2026, 11, 22, 2, 9, 5, 0, time.UTC); err != nil || !got.Equal(want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "yesterday\n"} {
		if _, err := newest(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

// system is a tiny system as mmdebstrap streams it.
func system() map[string]string {
	return map[string]string{
		"boot/vmlinuz-6.12.0-cloud":                             "kernel",
		"boot/config-6.12.0-cloud":                              "CONFIG_X=y",
		"usr/lib/modules/6.12.0-cloud/modules.dep":              "kernel/erofs.ko:\n",
		"usr/lib/modules/6.12.0-cloud/kernel/erofs.ko":          "module",
		"var/lib/dpkg/status":                                   "Package: git\nStatus: install ok installed\nInstalled-Size: 2\nVersion: 1:2.47\nDescription: x\n continued: line\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
		"usr/local/lib/node_modules/@openai/codex/package.json": `{"name":"@openai/codex","version":"0.50.0","bin":{}}`,
		"usr/share/doc/git/copyright":                           "GPL",
		"usr/share/doc/git/README":                              "read me",
		"usr/share/locale/de/LC_MESSAGES/git.mo":                "x",
		"etc/machine-id":                                        "0123456789abcdef\n",
		"etc/ssh/ssh_host_ed25519_key":                          "secret",
		"etc/ssh/sshd_config":                                   "x",
		"var/cache/apt/pkgcache.bin":                            "x",
		"var/log/apt/history.log":                               "x",
		"dev/stray":                                             "x",
		"usr/bin/git":                                           "elf",
		"usr/bin/git-upload-pack":                               strings.Repeat("the same again ", 1000),
		"usr/lib/git-core/git-upload-pack":                      strings.Repeat("the same again ", 1000),
	}
}

func tarball(t *testing.T, files map[string]string) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	dirs := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		for d := path.Dir(name); !dirs[d]; d = path.Dir(d) {
			dirs[d] = true
			if err := w.WriteHeader(&tar.Header{Name: "./" + d + "/", Typeflag: tar.TypeDir, Mode: 0o755}); err != nil {
				t.Fatal(err)
			}
		}
		h := &tar.Header{Name: "./" + name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(files[name]))}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestUnpack(t *testing.T) {
	dir := t.TempDir()
	in := inputs{NPM: []string{"@openai/codex@0.50.0"}, Overlay: overlay(), Dropped: dropped()}
	got, err := unpack(tarball(t, system()), dir, in, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	if got.Release != "6.12.0-cloud" || len(got.Packages) != 2 || got.Packages[0].Name != "git" || got.Packages[0].Size != 2048 ||
		got.Packages[1].Name != "npm:@openai/codex" || got.Packages[1].Version != "0.50.0" {
		t.Errorf("content: %+v", got)
	}
	for name, want := range map[string]string{assemble.KernelFile: "kernel", "modules/modules.dep": "kernel/erofs.ko:\n", "modules/kernel/erofs.ko": "module"} {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	f, err := os.Open(filepath.Join(dir, assemble.StoreFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsys, err := goerofs.Open(f)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"usr/bin/git": "elf", "etc/machine-id": "", "usr/share/doc/git/copyright": "GPL", "etc/ssh/sshd_config": "x",
		"usr/lib/modules/6.12.0-cloud/kernel/erofs.ko": "module", "etc/sudoers.d/sandbox": sudoers,
	} {
		if data, err := fs.ReadFile(fsys, name); err != nil || string(data) != want {
			t.Errorf("%s in the store: %q, %v", name, data, err)
		}
	}
	for _, name := range []string{
		"boot/config-6.12.0-cloud", "usr/share/doc/git/README", "usr/share/locale/de", "etc/ssh/ssh_host_ed25519_key",
		"var/cache/apt/pkgcache.bin", "var/log/apt/history.log", "dev/stray",
	} {
		if _, err := fs.Stat(fsys, name); err == nil {
			t.Errorf("%s is in the store", name)
		}
	}
	for _, name := range []string{"boot", "dev", "var/cache/apt", "var/log/apt", "home", "usr/share/doc"} {
		if info, err := fs.Stat(fsys, name); err != nil || !info.IsDir() {
			t.Errorf("the directory %s is missing: %v", name, err)
		}
	}
	first, err1 := fs.Stat(fsys, "usr/bin/git-upload-pack")
	second, err2 := fs.Stat(fsys, "usr/lib/git-core/git-upload-pack")
	if err := errors.Join(err1, err2); err != nil || first.Sys().(*goerofs.Stat).Ino != second.Sys().(*goerofs.Stat).Ino {
		t.Errorf("equal files are stored twice: %v", err)
	}
	if target, err := fs.ReadLink(fsys, "etc/systemd/system/ssh.service"); err != nil || target != "/dev/null" {
		t.Errorf("ssh.service leads to %q, %v", target, err)
	}
}

func TestUnpackNamesWhatIsMissing(t *testing.T) {
	for missing, want := range map[string]string{
		"boot/vmlinuz-6.12.0-cloud":                "no kernel",
		"usr/lib/modules/6.12.0-cloud/modules.dep": "no list of the modules of kernel 6.12.0-cloud",
	} {
		files := system()
		delete(files, missing)
		if _, err := unpack(tarball(t, files), t.TempDir(), inputs{}, time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v, want %q", missing, err, want)
		}
	}
	stream := tarball(t, system())
	stream.Truncate(stream.Len()/2 + 100)
	if _, err := unpack(stream, t.TempDir(), inputs{}, time.Unix(1, 0)); err == nil || !strings.Contains(err.Error(), "reading the system") {
		t.Errorf("half a stream: %v", err)
	}
}
