package nix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/image"
)

// Environment variables that name what cannot be part of this repository.
const (
	treeVariable     = "SANDBOX_TEST_NIXPKGS"  // a tree of nixpkgs for evaluation
	replacedVariable = "SANDBOX_TEST_REPLACED" // the flake that this one replaces
)

// nix is Nix for one test: without a network, and with warnings of nixpkgs as
// errors.
type nix struct {
	t    *testing.T
	path string
	env  []string
}

// privateNix has a store of its own, so that the machine's stays untouched.
func privateNix(t *testing.T) *nix {
	t.Helper()
	path, err := exec.LookPath("nix")
	if err != nil {
		t.Skip("there is no Nix here: make setup-test installs it")
	}
	dir := t.TempDir()
	t.Cleanup(func() { makeRemovable(t, dir) })
	return &nix{t, path, append(
		os.Environ(),
		"HOME="+dir, "NIX_REMOTE=local", "NIX_STORE_DIR="+dir+"/store", "NIX_STATE_DIR="+dir+"/var", "NIX_LOG_DIR="+dir+"/log",
		"NIX_CONFIG=experimental-features = nix-command flakes\nsubstituters =\nflake-registry =\nbuild-users-group =\nwarn-dirty = false",
	)}
}

// nixWithTree uses the machine's store, in which the tree of nixpkgs is, and
// returns the options that every evaluation of the flake takes.
func nixWithTree(t *testing.T) (n *nix, options []string) {
	t.Helper()
	tree := os.Getenv(treeVariable)
	if tree == "" {
		t.Skipf("evaluates NixOS: set %s to a tree of nixpkgs in the Nix store, such as `nix flake archive --json | jq -r .inputs.nixpkgs.path` prints (docs/nix.md)", treeVariable)
	}
	path, err := exec.LookPath("nix")
	if err != nil {
		t.Skip("there is no Nix here: make setup-test installs it")
	}
	n = &nix{t, path, append(
		os.Environ(),
		"NIX_ABORT_ON_WARN=1",
		"NIX_CONFIG=experimental-features = nix-command flakes\nsubstituters =\nflake-registry =\nwarn-dirty = false",
	)}
	return n, []string{"--offline", "--no-write-lock-file", "--override-input", "nixpkgs", "path:" + tree}
}

// makeRemovable undoes what Nix does to the directories of its store.
func makeRemovable(t *testing.T, dir string) {
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	if err != nil {
		t.Errorf("making %s removable: %v", dir, err)
	}
}

// output runs Nix and returns what it prints.
func (n *nix) output(args ...string) string {
	n.t.Helper()
	out, complaints, err := n.run(args...)
	if err != nil {
		n.t.Fatalf("nix %s: %v\n%s", strings.Join(args, " "), err, complaints)
	}
	return out
}

// run runs Nix, which may fail.
func (n *nix) run(args ...string) (output, complaints string, err error) {
	cmd := exec.Command(n.path, args...)
	cmd.Env = n.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err = cmd.Run()
	return stdout.String(), stderr.String(), err
}

// evaluate applies a function in Nix to an output of the flake in dir.
func (n *nix) evaluate(result any, dir, attribute, function string, options []string) {
	n.t.Helper()
	args := append([]string{"eval", "--json", "path:" + dir + "#" + attribute, "--apply", function}, options...)
	if err := json.Unmarshal([]byte(n.output(args...)), result); err != nil {
		n.t.Fatalf("the value of %s: %v", attribute, err)
	}
}

// source copies the repository, because Nix takes a directory as it is: with
// everything that was built in it, or, by git, without what is new in it.
func source(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{
		"flake.nix", "flake.lock", "go.mod", "go.sum",
		"agent", "cmd", "image", "internal", "machine", "network", "nix", "qemu", "qmp", "virtiofs",
	} {
		from := filepath.Join("..", name)
		info, err := os.Stat(from)
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() {
			err = os.CopyFS(filepath.Join(dir, name), os.DirFS(from))
		} else {
			var data []byte
			if data, err = os.ReadFile(from); err == nil {
				err = os.WriteFile(filepath.Join(dir, name), data, 0o644)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// nixFiles are all files in Nix.
func nixFiles(t *testing.T) []string {
	t.Helper()
	files := []string{"../flake.nix"}
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".nix" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestFilesParse finds syntax errors and undefined variables, also in what
// nothing imports.
func TestFilesParse(t *testing.T) {
	n := privateNix(t)
	var list strings.Builder
	for _, file := range nixFiles(t) {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		list.WriteString(" " + path)
	}
	n.output("eval", "--impure", "--expr", "map (file: builtins.typeOf (import file)) ["+list.String()+" ]")
}

func TestFilesAreFormatted(t *testing.T) {
	nixfmt, err := exec.LookPath("nixfmt")
	if err != nil {
		t.Skip("there is no nixfmt here: run the tests in `nix develop`, or `nix build .#checks.x86_64-linux.format`")
	}
	if out, err := exec.Command(nixfmt, append([]string{"--check"}, nixFiles(t)...)...).CombinedOutput(); err != nil {
		t.Errorf("nixfmt: %v (`nix fmt` formats them)\n%s", err, out)
	}
}

// TestVendorHash recomputes what package.nix promises about the dependencies.
func TestVendorHash(t *testing.T) {
	n := privateNix(t)
	dir := filepath.Join(t.TempDir(), "vendor")
	cmd := exec.Command("go", "mod", "vendor", "-o", dir)
	cmd.Dir = ".."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go mod vendor: %v\n%s", err, out)
	}
	want := strings.TrimSpace(n.output("hash", "path", dir))
	text, err := os.ReadFile("package.nix")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`vendorHash = "([^"]*)";`).FindSubmatch(text)
	if found == nil {
		t.Fatal("package.nix has no vendorHash")
	}
	if got := string(found[1]); got != want {
		t.Errorf("go.mod has changed, and nix/package.nix says\n\tvendorHash = %q;\nwhere it has to be\n\tvendorHash = %q;", got, want)
	}
}

// TestLockIsComplete makes Nix read the lock file: it would fetch what is
// missing there, and has no network.
func TestLockIsComplete(t *testing.T) {
	n := privateNix(t)
	var metadata struct {
		Locks struct {
			Nodes map[string]struct {
				Locked   struct{ Rev, NarHash string }
				Original struct{ Owner, Repo, Ref string }
			}
		}
	}
	out := n.output("flake", "metadata", "--json", "--offline", "--no-update-lock-file", "path:"+source(t))
	if err := json.Unmarshal([]byte(out), &metadata); err != nil {
		t.Fatal(err)
	}
	pin := metadata.Locks.Nodes["nixpkgs"]
	if len(pin.Locked.Rev) != 40 || !strings.HasPrefix(pin.Locked.NarHash, "sha256-") || pin.Original.Ref != "nixos-unstable" {
		t.Errorf("flake.lock pins nixpkgs as %+v", pin)
	}
	if len(metadata.Locks.Nodes) != 2 {
		t.Errorf("nixpkgs should be the only input, and the lock has %v", metadata.Locks.Nodes)
	}
}

// TestFlakeCheck evaluates every output for every system.
func TestFlakeCheck(t *testing.T) {
	n, options := nixWithTree(t)
	n.output(append([]string{"flake", "check", "--no-build", "--all-systems", "path:" + source(t)}, options...)...)
}

// TestWarningsAreErrors makes sure that the other tests would not pass over a
// warning of NixOS.
func TestWarningsAreErrors(t *testing.T) {
	n, options := nixWithTree(t)
	const function = `mkImage: (mkImage { system = "x86_64-linux"; modules = [ { warnings = [ "this is odd" ]; } ]; }).drvPath`
	args := append([]string{"eval", "path:" + source(t) + "#lib.mkImage", "--apply", function}, options...)
	if out, complaints, err := n.run(args...); err == nil || !strings.Contains(complaints, "this is odd") {
		t.Errorf("a warning should end the evaluation: %v\n%s%s", err, out, complaints)
	}
}

// TestAConfigurationDecides makes choices of its own in what the guest's modules
// only suggest, which must not be a conflict.
func TestAConfigurationDecides(t *testing.T) {
	n, options := nixWithTree(t)
	const function = `mkImage: let
		image = mkImage {
			system = "x86_64-linux";
			name = "of-the-call";
			specialArgs.shell = "bash";
			modules = [ ({ pkgs, shell, ... }: {
				sandbox.name = "own";
				sandbox.user = "dev";
				sandbox.agentPackage = pkgs.hello;
				sandbox.compression = "fast";
				nixpkgs.hostPlatform = "aarch64-linux";
				system.nixos.revision = "0123456789012345678901234567890123456789";
				users.users.dev.shell = pkgs.${shell};
				services.journald = { storage = "persistent"; audit = true; };
				systemd.services.systemd-journald.serviceConfig.NoNewPrivileges = true;
				systemd.user.tmpfiles.rules = [ "d %h/own" ];
				services.openssh = { enable = true; startWhenNeeded = false; openFirewall = false; };
				systemd.coredump.enable = true;
				systemd.oomd.enable = true;
				networking.firewall.enable = true;
				networking.hostName = "own";
				services.udev.enable = true;
				systemd.targets.getty.enable = true;
				boot.kernelModules = [ "dummy" ];
				boot.devShmSize = "20%";
				sandbox.cpus = 7;
				system.stateVersion = "25.11";
			}) ];
		};
		units = image.config.systemd.units;
	in builtins.seq image.drvPath {
		inherit (image.spec) manifest agent;
		inherit (image) buildCommand;
		nix = image.config.nix.settings;
		registry = image.config.nix.registry.nixpkgs.to;
		overlays = builtins.length image.config.nixpkgs.overlays;
		enabled = builtins.filter (name: units.${name}.enable) (builtins.attrNames units);
		sshd = image.config.services.openssh.extraConfig;
		mounts = image.config.system.build.earlyMountScript.text;
		journald = units."systemd-journald.service".text;
		inherit (image.config.systemd.user.services.systemd-tmpfiles-setup) wantedBy;
	}`
	var got struct {
		Manifest     image.Manifest
		Agent        string
		BuildCommand string
		Nix          map[string]any
		Registry     map[string]string
		Overlays     int
		Enabled      []string
		Sshd         string
		Mounts       string
		Journald     string
		WantedBy     []string // the rules for what a user's manager makes
	}
	n.evaluate(&got, source(t), "lib.mkImage", function, options)
	m := got.Manifest
	for _, unit := range []string{"nftables.service", "systemd-journal-flush.service", "systemd-udevd.service", "systemd-udev-trigger.service", "getty.target", "sshd.service", "systemd-modules-load.service", "systemd-journald-audit.socket"} {
		if !slices.Contains(got.Enabled, unit) {
			t.Errorf("%s does not run, though it was asked for", unit)
		}
	}
	if user := fmt.Sprint(m.User); user != "{dev 1000 1000 /home/dev /run/current-system/sw/bin/bash}" || fmt.Sprint(got.Nix["allowed-users"]) != "[dev]" {
		t.Errorf("the user is %s, and Nix lets in %v", user, got.Nix["allowed-users"])
	}
	if !strings.Contains(got.Agent, "-hello-") || !strings.Contains(got.BuildCommand, "-zlz4 ") || m.System != "aarch64-linux" {
		t.Errorf("the agent is %s, the system %s, and the build:\n%s", got.Agent, m.System, got.BuildCommand)
	}
	if got.Registry["rev"] != "0123456789012345678901234567890123456789" {
		t.Errorf("nixpkgs is %v for the guest's Nix, and not the revision that it was built from", got.Registry)
	}
	if !strings.Contains(got.Journald, "NoNewPrivileges=true\n") || len(got.WantedBy) == 0 {
		t.Errorf("rules for users are wanted by %q, and journald is confined by\n%s", got.WantedBy, got.Journald)
	}
	// A configuration that brings its own nixpkgs.pkgs admits none.
	if got.Overlays != 0 {
		t.Error("the guest's modules set an overlay")
	}
	if !strings.HasSuffix(got.Sshd, "Match User dev\n  SetEnv XDG_RUNTIME_DIR=/run/user/1000\n") {
		t.Errorf("a login by OpenSSH lacks its runtime directory:\n%s", got.Sshd)
	}
	if !strings.Contains(got.Mounts, `"/dev/shm" "nosuid,nodev,strictatime,mode=1777,size=20%"`) || strings.Contains(got.Mounts, `"/proc"`) {
		t.Errorf("what differs from the agent's mounts, and only that, should be mounted anew:\n%s", got.Mounts)
	}
	if m.Name != "own" || m.User.Shell != "/run/current-system/sw/bin/bash" || m.Defaults.CPUs != 7 {
		t.Errorf("the manifest is %+v", m)
	}
}

// TestWhoMakesEtc asks which configurations let the image bring /etc and the
// users. What only the guest can know, or must not be the same in all of them,
// is made there, and what a user has it do at each boot is done.
func TestWhoMakesEtc(t *testing.T) {
	n, options := nixWithTree(t)
	modules := map[string]string{
		"what can be said before": `{
			users.users.bob = { isNormalUser = true; hashedPassword = "$6$a$b"; };
			environment.etc.copy = { text = ""; mode = "0600"; user = "bob"; };
			environment.etc.link.source = "/home/agent/own";
		}`,
		"a step of its own":             `{ system.activationScripts.own = "echo of the user"; }`,
		"a mount of its own":            `{ boot.devShmSize = "20%"; }`,
		"a password":                    `{ users.users.bob = { isNormalUser = true; password = "secret"; }; }`,
		"a password's file":             `{ users.users.bob = { isNormalUser = true; hashedPasswordFile = "/home/bob.hash"; }; }`,
		"a home in memory":              `{ users.users.bob = { isNormalUser = true; home = "/run/bob"; }; }`,
		"a copy of a file of the guest": `{ environment.etc.own = { source = "/home/agent/own"; mode = "0600"; }; }`,
	}
	function := "mkImage: let of = module: let c = (mkImage { system = \"x86_64-linux\"; modules = [ module ]; }).config; in {\n" +
		"brought = c.sandbox.root != null; users = c.system.activationScripts.users.text; prepare = c.system.build.sandboxPrepare.text; }; in {\n"
	for name, module := range modules {
		function += fmt.Sprintf("%q = of %s;\n", name, module)
	}
	var got map[string]struct {
		Brought        bool
		Users, Prepare string
	}
	n.evaluate(&got, source(t), "lib.mkImage", function+"}", options)
	activating := []string{"a step of its own", "a mount of its own"}
	for name := range modules {
		want := name == "what can be said before" || slices.Contains(activating, name)
		if got[name].Brought != want || strings.HasPrefix(got[name].Users, "if [[ ! ${SANDBOX_ETC_IS_THERE:-} ]]; then\n") != want {
			t.Errorf("with %s, the image brings /etc: %v, want %v; the activation:\n%s", name, got[name].Brought, want, got[name].Users)
		}
		if got := got[name].Prepare; strings.Contains(got, "mount --all") != want || strings.Contains(got, "/activate ") != slices.Contains(activating, name) {
			t.Errorf("with %s, the preparation is\n%s", name, got)
		}
	}
}

// TestCrossBuilding evaluates an image that another processor builds.
func TestCrossBuilding(t *testing.T) {
	n, options := nixWithTree(t)
	const function = `mkImage: let
		image = mkImage { system = "aarch64-linux"; modules = [ { nixpkgs.buildPlatform = "x86_64-linux"; } ]; };
	in {
		builder = builtins.seq image.drvPath image.system;
		inherit (image.spec.manifest) system;
	}`
	var got struct{ Builder, System string }
	n.evaluate(&got, source(t), "lib.mkImage", function, options)
	if got.Builder != "x86_64-linux" || got.System != "aarch64-linux" {
		t.Errorf("an image for %s is built on %s", got.System, got.Builder)
	}
}

// TestHost evaluates the module for the machine on which sandboxes run.
func TestHost(t *testing.T) {
	n, options := nixWithTree(t)
	dir := t.TempDir()
	const flake = `{
		inputs.nixpkgs.url = "github:nixos/nixpkgs/nixos-unstable";
		inputs.sandbox.url = "github:sourcery-zone/sandbox";
		outputs = { nixpkgs, sandbox, ... }: {
			host = nixpkgs.lib.nixosSystem {
				modules = [
					sandbox.nixosModules.host
					{
						nixpkgs.hostPlatform = "x86_64-linux";
						system.stateVersion = "25.11";
						users.users = { ann.isNormalUser = true; ben.isNormalUser = true; };
						programs.sandbox.users = [ "ben" ];
						services.sandbox.work = { user = "ann"; options = [ "--image" "nixos" "--share" "/srv/it's here" ]; };
						services.sandbox.rare = { user = "ann"; autostart = false; };
					}
				];
			};
		};
	}`
	if err := os.WriteFile(filepath.Join(dir, "flake.nix"), []byte(flake), 0o644); err != nil {
		t.Fatal(err)
	}
	options = append(options, "--override-input", "sandbox", "path:"+source(t), "--override-input", "sandbox/nixpkgs", "path:"+os.Getenv(treeVariable))
	var got struct {
		Units    map[string]string
		WantedBy map[string][]string
		Script   string
		Linger   bool
		Groups   map[string][]string
		Packages []string
	}
	const function = `host: let c = host.config; ours = builtins.filter (n: builtins.match "sandbox-.*" n != null); services = c.systemd.user.services; in {
		units = builtins.mapAttrs (_: u: u.text) (removeAttrs c.systemd.user.units (builtins.filter (n: ours [ n ] == [ ]) (builtins.attrNames c.systemd.user.units)));
		wantedBy = builtins.listToAttrs (map (name: { inherit name; value = services.${name}.wantedBy; }) (ours (builtins.attrNames services)));
		inherit (services.sandbox-work) script;
		linger = c.users.users.ann.linger;
		groups = builtins.mapAttrs (_: u: u.extraGroups) { inherit (c.users.users) ann ben; };
		packages = map (p: p.pname or p.name) c.environment.systemPackages;
	}`
	n.evaluate(&got, dir, "host", function, options)
	if want := map[string][]string{"sandbox-work": {"default.target"}, "sandbox-rare": {}}; !reflect.DeepEqual(got.WantedBy, want) {
		t.Errorf("the units are wanted by %v, want %v", got.WantedBy, want)
	}
	if !strings.Contains(got.Script, `sandbox run -d --name work --image nixos --share '/srv/it'\''s here'`) || !strings.Contains(got.Script, "exec sandbox start work") {
		t.Errorf("it starts by\n%s", got.Script)
	}
	for _, line := range []string{"ConditionUser=ann", "RemainAfterExit=true", "/bin/sandbox stop work"} {
		if !strings.Contains(got.Units["sandbox-work.service"], line) {
			t.Errorf("the unit lacks %s:\n%s", line, got.Units["sandbox-work.service"])
		}
	}
	if want := map[string][]string{"ann": {"kvm"}, "ben": {"kvm"}}; !got.Linger || !reflect.DeepEqual(got.Groups, want) {
		t.Errorf("ann's services stay: %v, groups: %v", got.Linger, got.Groups)
	}
	if !slices.Contains(got.Packages, "sandbox") {
		t.Error("the program is not installed")
	}
}

// TestTemplate evaluates what `nix flake init` gives, with this flake as its
// input.
func TestTemplate(t *testing.T) {
	n, options := nixWithTree(t)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("template")); err != nil {
		t.Fatal(err)
	}
	options = append(options, "--override-input", "sandbox", "path:"+source(t), "--override-input", "sandbox/nixpkgs", "path:"+os.Getenv(treeVariable))
	for _, system := range []string{"x86_64-linux", "aarch64-linux"} {
		var got struct {
			Manifest image.Manifest
			Packages []string
		}
		const function = `image: { inherit (image.spec) manifest; packages = map (p: p.pname or p.name) image.packages; }`
		n.evaluate(&got, dir, "packages."+system+".image", function, options)
		if got.Manifest.Name != "mine" || got.Manifest.System != system {
			t.Errorf("the template's image for %s is called %q and is for %s", system, got.Manifest.Name, got.Manifest.System)
		}
		if !slices.Contains(got.Packages, "gnumake") {
			t.Errorf("the template's image lacks its package: %v", got.Packages)
		}
	}
}
