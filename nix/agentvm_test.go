package nix

import (
	"encoding/json"
	"os"
	"reflect"
	"slices"
	"testing"
)

// row is one thing that the replaced guest had.
type row struct {
	what string
	// replaced is what github:sourcery-zone/agent-vm evaluated to at its last
	// revision, 230d2cf, as JSON, and theirs the function in Nix of its
	// configuration that says so; the same as ask if it is empty.
	replaced, theirs string
	// ask is a function of our configuration, and ours its result.
	ask, ours string
	// why says why ours is another, where it is.
	why string
}

// configured are the rows about single options.
var configured = []row{
	// Users.
	{"the user's number", `1000`, ``, `c: c.users.users.agent.uid`, `1000`, ""},
	{"the user is an ordinary one", `true`, ``, `c: c.users.users.agent.isNormalUser`, `true`, ""},
	{"the user's home", `"/home/agent"`, ``, `c: c.users.users.agent.home`, `"/home/agent"`, ""},
	{"the user's group", `"users"`, ``, `c: c.users.users.agent.group`, `"agent"`, "the host maps the number of one group, and users is everybody's"},
	{"the user's other groups", `[]`, ``, `c: c.users.users.agent.extraGroups`, `["systemd-journal"]`, "the user reads the log of its own machine"},
	{"the user's shell", `"bash-interactive"`, ``, `c: c.users.users.agent.shell.pname`, `"zsh"`, "zsh was switched on for the user, who then did not get it"},
	{"zsh is set up", `true`, ``, `c: c.programs.zsh.enable`, `true`, ""},
	{"keys in the image", `1`, ``, `c: builtins.length c.users.users.agent.openssh.authorizedKeys.keys`, `0`, "the host gives the user's own at each boot"},
	{
		"root's password", `{"hashedPassword":null,"initialHashedPassword":null,"initialPassword":null,"password":""}`, ``,
		`c: with c.users.users.root; { inherit password hashedPassword initialPassword initialHashedPassword; }`,
		`{"hashedPassword":null,"initialHashedPassword":null,"initialPassword":null,"password":null}`,
		"an empty one let everybody in; sandbox exec --user root does not need any",
	},
	{
		"shutdown without a password", `[{"command":"/run/current-system/sw/bin/shutdown","options":["NOPASSWD"]}]`, ``,
		`c: builtins.concatMap (r: if r.users == [ "agent" ] then r.commands else [ ]) c.security.sudo.extraRules`,
		`[{"command":"/run/current-system/sw/bin/shutdown","options":["NOPASSWD"]}]`, "",
	},
	{"a shell at the console", `"agent"`, ``, `c: c.services.getty.autologinUser`, `null`, "sandbox attach is that, at any number of terminals and with their size"},

	// Network.
	{
		"the network card", `[{"mac":"52:54:00:12:34:56","type":"user"}]`, `c: map (i: { inherit (i) type mac; }) c.microvm.interfaces`,
		`c: builtins.elem "virtio-net" c.system.build.sandboxImage.spec.manifest.requires`, `true`,
		"sandbox run's network is the user's too, and gives each sandbox an address of its own",
	},
	{"OpenSSH", `true`, ``, `c: c.services.openssh.enable`, `true`, ""},
	{"ports of OpenSSH", `[22]`, ``, `c: c.services.openssh.ports`, `[22]`, ""},
	{"passwords over ssh", `false`, ``, `c: c.services.openssh.settings.PasswordAuthentication`, `false`, ""},
	{"root over ssh", `"no"`, ``, `c: c.services.openssh.settings.PermitRootLogin`, `"no"`, ""},
	{"firewall", `true`, ``, `c: c.networking.firewall.enable`, `true`, ""},
	{"ports that are open", `[22,443]`, ``, `c: c.networking.firewall.allowedTCPPorts`, `[22,443]`, ""},
	{"ports that are open for UDP", `[]`, ``, `c: c.networking.firewall.allowedUDPPorts`, `[]`, ""},
	{"NixOS's DHCP client", `true`, ``, `c: c.networking.useDHCP`, `false`, "the agent has an address before systemd is up"},
	{"host name", `"agent-vm"`, ``, `c: c.networking.hostName`, `""`, "the sandbox's name, from the host"},
	{
		"host ports that are forwarded", `[[2222,22]]`, `c: map (p: [ p.host.port p.guest.port ]) c.microvm.forwardPorts`,
		`c: c.sandbox.guest.openSSH`, `true`, "sandbox run forwards 2222 to 22 unless told otherwise; here only who answers there",
	},

	// Nix and its store.
	{"Nix", `true`, ``, `c: c.nix.enable`, `true`, ""},
	{"who may use Nix", `["agent"]`, ``, `c: c.nix.settings.allowed-users`, `["agent"]`, ""},
	{"whom Nix trusts", `["root","root","agent","@wheel"]`, ``, `c: c.nix.settings.trusted-users`, `["root","root","agent","@wheel"]`, ""},
	{"Nix's sandbox", `true`, ``, `c: c.nix.settings.sandbox`, `true`, ""},
	{"where Nix fetches from", `["https://cache.nixos.org/"]`, ``, `c: c.nix.settings.substituters`, `["https://cache.nixos.org/"]`, ""},
	{
		"commands of Nix for flakes", `[]`, ``, `c: c.nix.settings.experimental-features or [ ]`, `["nix-command","flakes"]`,
		"nix shell works as it is",
	},
	{
		"the writable store", `{"lowerdir":["/nix/.ro-store"],"upperdir":"/nix/.rw-store/store"}`,
		`c: { inherit (c.fileSystems."/nix/store".overlay) lowerdir upperdir; }`,
		`c: { inherit (c.fileSystems."/") fsType; inherit (c.system.build.sandboxImage.spec.manifest.store) mount; }`,
		`{"fsType":"overlay","mount":"/"}`, "one overlay over all of the root, in memory or on the sandbox's disk, instead of one for the store",
	},
	{
		"the store's file system", `"9p"`, `c: c.fileSystems."/nix/.ro-store".fsType`,
		`c: c.system.build.sandboxImage.spec.manifest.store.format`, `"erofs"`, "an image of its own: the host's store is not shown to the guest",
	},
	{
		"disks in MiB", `{"/nix/.rw-store":30720,"/var":256}`,
		`c: builtins.listToAttrs (map (v: { name = v.mountPoint; value = v.size; }) c.microvm.volumes)`,
		`c: c.system.build.sandboxSbin ? "mkfs.ext4"`, `true`,
		"sandbox run --disk 30G keeps all of the root, /var and the store as well; the image brings what makes its file system",
	},
	{
		"the home's file system", `"virtiofs"`, `c: c.fileSystems."/home/agent".fsType`,
		`c: if builtins.elem "virtiofs" c.system.build.sandboxImage.spec.manifest.requires then "virtiofs" else null`, `"virtiofs"`, "",
	},
	{
		"registration of the closure at boot", `true`, ``, `c: builtins.length (builtins.split "nix-store --load-db" c.boot.postBootCommands) > 1`, `false`,
		"the image contains the database, so it costs no time at boot",
	},

	// What every NixOS has, and some images leave out.
	{"pages of man", `true`, ``, `c: c.documentation.man.enable`, `true`, ""},
	{"a word on programs for other systems", `true`, ``, `c: c.environment.stub-ld.enable`, `true`, ""},
	{"release", `"25.11"`, `c: c.system.stateVersion`, `c: c.system.stateVersion == c.system.nixos.release`, `true`, "a new image has no state to be kept compatible with"},

	// Machine, which sandbox run can change without a new image.
	{"memory in MiB", `16384`, `c: c.microvm.mem`, `c: c.sandbox.memoryMiB`, `4096`, "sandbox run --memory 16G"},
	{"processors", `8`, `c: c.microvm.vcpu`, `c: c.sandbox.cpus`, `4`, "sandbox run --cpus 8"},
	{"who boots it", `"qemu"`, `c: c.microvm.hypervisor`, `c: c ? microvm`, `false`, "sandbox run starts QEMU, and the image has nothing to do with that"},
	{"QEMU's monitor", `"control.socket"`, `c: c.microvm.socket`, `c: c ? microvm`, `false`, "sandbox qmp"},
}

// comparison is configured, and a row for each package: those that the replaced
// guest named itself, those that it had as every NixOS has them, and codex.
func comparison() []row {
	rows := slices.Clone(configured)
	packages := []string{
		"git", "claude-code", "gemini-cli", "devenv", "direnv", "nix-direnv", "emacs", "vim", "opencode", "tmux", "nodejs",
		"man-db", "openssh", "perl", "rsync", "strace",
	}
	has := func(name string) string {
		return `c: builtins.elem "` + name + `" (map (p: p.pname or "") c.environment.systemPackages)`
	}
	for _, name := range packages {
		rows = append(rows, row{"package " + name, `true`, ``, has(name), `true`, ""})
	}
	return append(rows, row{"package codex", `false`, ``, has("codex"), `true`, "it came with this project"})
}

// TestAgentVMHasWhatTheReplacedGuestHad compares the two side by side.
func TestAgentVMHasWhatTheReplacedGuestHad(t *testing.T) {
	n, options := nixWithTree(t)
	rows := comparison()
	var ask []string
	for _, r := range rows {
		ask = append(ask, r.ask)
	}
	got := n.askAll(ask, source(t), options)
	for i, r := range rows {
		t.Logf("%-36s %-36s %-36s %s", r.what, r.replaced, got[i], r.why)
		if !sameJSON(t, got[i], r.ours) {
			t.Errorf("%s: it was %s, and ours is %s where it should be %s", r.what, r.replaced, got[i], r.ours)
		}
		if same := sameJSON(t, r.replaced, r.ours); !same && r.why == "" {
			t.Errorf("%s: it was %s and is %s, and the table does not say why", r.what, r.replaced, r.ours)
		}
	}
}

// TestTheReplacedGuestWasLikeThat evaluates the replaced flake, too.
func TestTheReplacedGuestWasLikeThat(t *testing.T) {
	dir := os.Getenv(replacedVariable)
	if dir == "" {
		t.Skipf("evaluates the replaced flake: set %s to a clone of it whose inputs are in the Nix store, as `nix flake archive` in it puts them there (docs/nix.md)", replacedVariable)
	}
	n, options := nixWithTree(t)
	rows := comparison()
	var ask []string
	for _, r := range rows {
		if r.theirs == "" {
			r.theirs = r.ask
		}
		ask = append(ask, r.theirs)
	}
	got := n.askAll(ask, dir, options)
	for i, r := range rows {
		if !sameJSON(t, got[i], r.replaced) {
			t.Errorf("%s: it was %s, and the table says %s", r.what, got[i], r.replaced)
		}
	}
}

// askAll applies functions to a flake's configuration of agent-vm, all in one
// evaluation.
func (n *nix) askAll(functions []string, dir string, options []string) []string {
	n.t.Helper()
	list := "c: ["
	for _, f := range functions {
		list += " ((" + f + ") c)"
	}
	var values []json.RawMessage
	n.evaluate(&values, dir, "nixosConfigurations.agent-vm.config", list+" ]", options)
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = string(v)
	}
	return texts
}

// sameJSON compares two values by their meaning.
func sameJSON(t *testing.T, a, b string) bool {
	t.Helper()
	parse := func(text string) (value any) {
		if err := json.Unmarshal([]byte(text), &value); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		return value
	}
	return reflect.DeepEqual(parse(a), parse(b))
}
