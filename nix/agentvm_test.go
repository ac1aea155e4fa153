package nix

import (
	"encoding/json"
	"reflect"
	"testing"
)

// row is one thing that the replaced guest had.
type row struct {
	what string
	// replaced is what github:sourcery-zone/agent-vm evaluated to at its last
	// revision, 230d2cf, with microvm.nix of August 2026.
	replaced string
	// ask is a function in Nix of our configuration, and ours its result as
	// JSON.
	ask, ours string
	// why says why ours is another, where it is.
	why string
}

// TestAgentVMHasWhatTheReplacedGuestHad compares the two side by side.
func TestAgentVMHasWhatTheReplacedGuestHad(t *testing.T) {
	rows := []row{
		// Users.
		{"the user's number", `1000`, `c: c.users.users.agent.uid`, `1000`, ""},
		{"the user is an ordinary one", `true`, `c: c.users.users.agent.isNormalUser`, `true`, ""},
		{"the user's home", `"/home/agent"`, `c: c.users.users.agent.home`, `"/home/agent"`, ""},
		{"the user's group", `"users"`, `c: c.users.users.agent.group`, `"agent"`, "the host maps the number of one group, and users is everybody's"},
		{"the user's shell", `"bash-interactive-5.3p9"`, `c: c.users.users.agent.shell.pname`, `"zsh"`, "zsh was switched on for the user, who then did not get it"},
		{"zsh is set up", `true`, `c: c.programs.zsh.enable`, `true`, ""},
		{"keys in the image", `1`, `c: builtins.length c.users.users.agent.openssh.authorizedKeys.keys`, `0`, "the host gives the user's own at each boot"},
		{
			"root's password", `""`, `c: with c.users.users.root; { inherit password hashedPassword initialPassword initialHashedPassword; }`,
			`{"hashedPassword":null,"initialHashedPassword":null,"initialPassword":null,"password":null}`, "an empty one let everybody in; sandbox exec --user root does not need any",
		},
		{
			"shutdown without a password", `[{"command":"/run/current-system/sw/bin/shutdown","options":["NOPASSWD"]}]`,
			`c: builtins.concatMap (r: if r.users == [ "agent" ] then r.commands else [ ]) c.security.sudo.extraRules`,
			`[{"command":"/run/current-system/sw/bin/shutdown","options":["NOPASSWD"]}]`, "",
		},
		{"a shell at the console", `"agent"`, `c: c.services.getty.autologinUser`, `null`, "sandbox attach is that, at any number of terminals and with their size"},

		// Network.
		{"OpenSSH", `true`, `c: c.services.openssh.enable`, `true`, ""},
		{"ports of OpenSSH", `[22]`, `c: c.services.openssh.ports`, `[22]`, ""},
		{"passwords over ssh", `false`, `c: c.services.openssh.settings.PasswordAuthentication`, `false`, ""},
		{"root over ssh", `"no"`, `c: c.services.openssh.settings.PermitRootLogin`, `"no"`, ""},
		{"firewall", `true`, `c: c.networking.firewall.enable`, `true`, ""},
		{"ports that are open", `[22,443]`, `c: c.networking.firewall.allowedTCPPorts`, `[22,443]`, ""},
		{"NixOS's DHCP client", `true`, `c: c.networking.useDHCP`, `false`, "the agent has an address before systemd is up"},
		{"host name", `"agent-vm"`, `c: c.networking.hostName`, `""`, "the sandbox's name, from the host"},
		{"host port forwarded to 22", `2222`, `c: c.sandbox.guest.openSSH`, `true`, "sandbox run forwards 2222 to 22 unless told otherwise; here only who answers there"},

		// Nix and its store.
		{"Nix", `true`, `c: c.nix.enable`, `true`, ""},
		{"who may use Nix", `["agent"]`, `c: c.nix.settings.allowed-users`, `["agent"]`, ""},
		{"whom Nix trusts", `["root","root","agent","@wheel"]`, `c: c.nix.settings.trusted-users`, `["root","root","agent","@wheel"]`, ""},
		{
			"the writable store", `["/nix/.ro-store","/nix/.rw-store/store"]`, `c: { inherit (c.fileSystems."/") device fsType; inherit (c.system.build.sandboxImage.spec.manifest.store) mount; }`,
			`{"device":"overlay","fsType":"overlay","mount":"/"}`, "one overlay over all of the root, in memory or on the sandbox's disk, instead of one for the store",
		},
		{"the store's file system", `"9p"`, `c: c.system.build.sandboxImage.spec.manifest.store.format`, `"erofs"`, "an image of its own: the host's store is not shown to the guest"},
		{"size of the store's disk in MiB", `30720`, `c: c.system.build.sandboxSbin ? "mkfs.ext4"`, `true`, "sandbox run --disk 30G; the image brings what makes its file system"},
		{"registration of the closure", `"a boot command"`, `c: c.boot.postBootCommands`, `""`, "the image contains the database, so it costs no time at boot"},

		// Machine, which sandbox run can change without a new image.
		{"memory in MiB", `16384`, `c: c.sandbox.memoryMiB`, `4096`, "sandbox run --memory 16G"},
		{"processors", `8`, `c: c.sandbox.cpus`, `4`, "sandbox run --cpus 8"},
	}
	// Packages: those that the replaced guest named itself, and codex.
	for _, name := range []string{
		"git", "claude-code", "gemini-cli", "devenv", "direnv", "nix-direnv", "emacs", "vim", "opencode", "tmux", "nodejs", "codex",
	} {
		rows = append(rows, row{"package " + name, `true`, `c: builtins.elem "` + name + `" (map (p: p.pname or "") c.environment.systemPackages)`, `true`, ""})
	}

	n, options := nixWithTree(t)
	// One evaluation for all of them.
	function := "c: ["
	for _, r := range rows {
		function += " ((" + r.ask + ") c)"
	}
	var got []json.RawMessage
	n.evaluate(&got, source(t), "nixosConfigurations.agent-vm.config", function+" ]", options)
	for i, r := range rows {
		ours := string(got[i])
		t.Logf("%-34s %-36s %-36s %s", r.what, r.replaced, ours, r.why)
		if !sameJSON(t, ours, r.ours) {
			t.Errorf("%s: it was %s, and ours is %s where it should be %s", r.what, r.replaced, ours, r.ours)
		}
		if same := sameJSON(t, r.replaced, r.ours); !same && r.why == "" {
			t.Errorf("%s: it was %s and is %s, and the table does not say why", r.what, r.replaced, r.ours)
		}
	}
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
