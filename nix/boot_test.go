package nix

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// guestsVariable asks for the tests that boot guests.
const guestsVariable = "SANDBOX_TEST_GUESTS"

// ownGuest is a flake whose guest has what the plain one leaves to its users.
const ownGuest = `{
	inputs.sandbox.url = "github:sourcery-zone/sandbox";
	outputs = { sandbox, ... }: {
		packages.x86_64-linux.image = sandbox.lib.mkImage {
			system = "x86_64-linux";
			name = "own";
			modules = [ {
				sandbox.compression = "fast";
				environment.variables.OF_THE_CONFIGURATION = "yes";
				networking.hosts."10.1.2.3" = [ "of.the.configuration" ];
				networking.firewall.enable = true;
				services.openssh.enable = true;
				system.activationScripts.own = "echo activated >/run/own";
				boot.postBootCommands = "echo before systemd >>/run/own";
				environment.etc."of/the/configuration" = { text = "for Bob"; mode = "0640"; user = "bob"; group = "wheel"; };
				users.users.bob = {
					isNormalUser = true;
					hashedPassword = "$6$salt$` + "hashOfBob" + `";
				};
			} ];
		};
	};
}`

// activate prints what NixOS's activation changes, except in the file in which
// the agent has its own lines, and which it leaves as it was. Perl has no order for those of subordinate
// numbers.
const activate = `
	list() {
		find /etc /var/lib/nixos ! -type d ! -name hosts -printf '%p %M %u:%g %l\n' -type f ! -name '*sub[ug]id*' -exec sha256sum {} +
		sed 's/[{},]/\n/g' /etc/sub[ug]id /var/lib/nixos/auto-subuid-map
	}
	cp -a /etc/hosts /run/hosts
	list | sort >/run/before
	/run/current-system/activate >/run/activation 2>&1 || cat /run/activation
	list | sort | diff /run/before -
	cp -a --remove-destination /run/hosts /etc/hosts`

// wrap prints how the programs that give privileges differ from those which the service of NixOS makes, whose own script
// knows no other place than theirs.
const wrap = `
	list() {
		cd "$1"
		find . -type f -printf '%p %M %u:%g ' -exec sha256sum {} \;
		find . -type f -exec $(echo /nix/store/*-libcap-*/bin/getcap) {} +
	}
	cp -a /run/wrappers/bin /run/wrappers/brought
	list /run/wrappers/brought | sort >/run/before
	rm -r /run/wrappers/bin
	sh -c "$(sed -n 's/^ExecStart=//p' /etc/systemd/system/suid-sgid-wrappers.service)"
	list /run/wrappers/bin/ | sort | diff /run/before - && wc -l </run/before`

// TestBoot builds the plain image of the flake, and one of a user's own, with
// Debian's binaries in the place of what a binary cache would have, and boots
// them.
func TestBoot(t *testing.T) {
	if os.Getenv(guestsVariable) == "" {
		t.Skip("boots guests of NixOS: run make nix-boot")
	}
	n, _ := nixWithTree(t)
	for _, program := range []string{"apt-get", "dpkg-deb", "gcc", "patchelf"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("unpacks Debian's packages with %s, which is not here: make setup-test installs what Debian has", program)
		}
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cache = filepath.Join(cache, "sandbox", "nix-boot")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	build(t, bin, "../cmd/sandbox")
	inside := t.TempDir()
	build(t, inside, "../cmd/sandbox-agent", "./mkimage")

	repository := "path:" + source(t)
	inputs := map[string]string{
		"nixpkgs":          n.stored("testdata/boot"),
		"nixpkgs/tree":     n.locked(os.Getenv(treeVariable)),
		"nixpkgs/debs":     n.stored(debs(t, n, cache)),
		"nixpkgs/programs": n.stored(inside),
	}
	own := t.TempDir()
	if err := os.WriteFile(filepath.Join(own, "flake.nix"), []byte(ownGuest), 0o644); err != nil {
		t.Fatal(err)
	}
	buildImage := func(name, flake, prefix string) string {
		link := filepath.Join(cache, name) // which keeps it from being collected
		args := []string{"build", flake + "#packages.x86_64-linux.image", "--out-link", link, "--offline", "--no-write-lock-file"}
		for _, input := range slices.Sorted(maps.Keys(inputs)) {
			args = append(args, "--override-input", prefix+input, inputs[input])
		}
		if prefix != "" {
			args = append(args, "--override-input", "sandbox", repository)
		}
		n.output(args...)
		return link
	}
	plain := buildImage("plain", repository, "")
	mine := buildImage("own", "path:"+own, "sandbox/")

	testscript.Run(t, testscript.Params{
		Files: []string{"testdata/boot.txtar"},
		Setup: func(env *testscript.Env) error {
			runtime, err := os.MkdirTemp("", "sb") // below the script's, sockets' paths are too long
			if err != nil {
				return err
			}
			env.Defer(func() { os.RemoveAll(runtime) })
			env.Setenv("XDG_RUNTIME_DIR", runtime)
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			for name, dir := range map[string]string{"XDG_DATA_HOME": "data", "XDG_STATE_HOME": "state", "XDG_CACHE_HOME": "cache"} {
				env.Setenv(name, filepath.Join(env.WorkDir, dir)) // root would have those of the machine
			}
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("SANDBOX_TIMEOUT", "30m") // of an emulated boot on a slow machine
			env.Setenv("PLAIN", plain)
			env.Setenv("OWN", mine)
			env.Setenv("ACTIVATE", activate)
			env.Setenv("WRAP", wrap)
			env.Defer(func() { // what a failed script left running
				cmd := exec.Command("sh", "-c", "sandbox ls --quiet | xargs -r sandbox rm --force")
				cmd.Env = env.Vars
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("removing what is left: %v\n%s", err, out)
				}
			})
			return os.Mkdir(filepath.Join(env.WorkDir, "home"), 0o700)
		},
	})
}

// build builds programs, the same bytes for the same source.
func build(t *testing.T, dir string, packages ...string) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-trimpath", "-tags", "urfave_cli_no_docs", "-o", dir}, packages...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building %v: %v\n%s", packages, err, out)
	}
}

// stored adds a directory to the store, and returns it as an input of a flake.
func (n *nix) stored(dir string) string {
	n.t.Helper()
	return n.locked(strings.TrimSpace(n.output("store", "add", "--name", "source", "--mode", "nar", dir)))
}

// locked names a path in the store together with its hash, so that Nix need not
// read it: a tree of nixpkgs takes half a minute.
func (n *nix) locked(path string) string {
	n.t.Helper()
	var info map[string]struct{ NarHash string }
	if err := json.Unmarshal([]byte(n.output("path-info", "--json", path)), &info); err != nil {
		n.t.Fatal(err)
	}
	return "path:" + path + "?narHash=" + url.QueryEscape(info[path].NarHash)
}

// debs are Debian's packages that nixpkgs' are filled from, with all that they
// depend on, as they were when that list was last changed.
func debs(t *testing.T, n *nix, cache string) string {
	t.Helper()
	var filled map[string]string
	if err := json.Unmarshal([]byte(n.output("eval", "--json", "--file", "testdata/boot/table.nix", "filled")), &filled); err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, list := range filled {
		for name := range strings.FieldsSeq(list) {
			if !strings.Contains(name, ":") {
				names[name] = true
			}
		}
	}
	list := slices.Sorted(maps.Keys(names))
	sum := sha256.Sum256([]byte(strings.Join(list, " ")))
	dir := filepath.Join(cache, "debs-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir
	}
	work, err := os.MkdirTemp(cache, "debs-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(work)
	cmd := exec.Command("bash", append([]string{"-eu", "testdata/debs.sh", work}, list...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("downloading Debian's packages: %v\n%s", err, out)
	}
	if err := os.Rename(filepath.Join(work, "debs"), dir); err != nil {
		t.Fatal(fmt.Errorf("keeping Debian's packages: %w", err))
	}
	return dir
}
