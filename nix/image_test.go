package nix

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/image"
)

// evaluated is the guest of one image as Nix understands it.
type evaluated struct {
	Spec struct {
		Manifest image.Manifest
		Guest    boot.Setup
		Kernel   string
		Modules  []string
		Root     struct{ Wrappers string }
	}
	Toplevel     string
	Sbin         map[string]string
	Fstab        string
	Nix          map[string]any
	Enabled      []string // units
	Disabled     []string
	Generators   map[string]string
	Prepare      string
	Environment  string // what shells begin with
	NixSocket    string
	Journald     string
	Blacklisted  []string
	UserWants    []string
	Groups       []string // of the user
	Initrd       bool     // NixOS's own
	Firewall     bool
	Sudo         string
	Packages     []string
	Unfree       []string
	BuildCommand string
	Cmdline      []string
}

const evaluateGuest = `image: let c = image.config; in {
	inherit (image) spec buildCommand;
	toplevel = "${image.toplevel}";
	sbin = c.system.build.sandboxSbin;
	fstab = c.environment.etc.fstab.text;
	nix = c.nix.settings;
	enabled = builtins.filter (name: c.systemd.units.${name}.enable) (builtins.attrNames c.systemd.units);
	disabled = builtins.filter (name: ! c.systemd.units.${name}.enable) (builtins.attrNames c.systemd.units);
	inherit (c.systemd) generators;
	prepare = c.system.build.sandboxPrepare.text;
	environment = c.system.build.setEnvironment.text;
	journald = c.systemd.units."systemd-journald.service".text;
	blacklisted = c.boot.blacklistedKernelModules;
	userWants = c.systemd.user.services.systemd-tmpfiles-setup.wantedBy;
	nixSocket = c.systemd.units."nix-daemon.socket".text;
	groups = c.users.users.agent.extraGroups;
	initrd = c.boot.initrd.enable;
	firewall = c.networking.firewall.enable;
	sudo = c.security.sudo.configFile;
	packages = map (p: p.pname or p.name) image.packages;
	unfree = map (p: p.name) (builtins.filter (p: ! (p.meta.license.free or true)) image.packages);
	cmdline = c.boot.kernelParams;
}`

// TestImage evaluates the plain image and checks what the contract demands.
func TestImage(t *testing.T) {
	n, options := nixWithTree(t)
	dir := source(t)
	for _, system := range []string{"x86_64-linux", "aarch64-linux"} {
		t.Run(system, func(t *testing.T) {
			n := &nix{t, n.path, n.env}
			var got evaluated
			n.evaluate(&got, dir, "packages."+system+".image", evaluateGuest, options)
			if got.Spec.Manifest.System != system {
				t.Errorf("the system is %s", got.Spec.Manifest.System)
			}
			checkManifest(t, got.Spec.Manifest, got.Spec.Guest)
			checkBoot(t, got, system)
			checkGuest(t, got)
			checkUnits(t, got)
			checkFirstCommands(t, got)
		})
	}
}

// checkManifest reads the manifest as the launcher and the agent do, with files
// as they could be.
func checkManifest(t *testing.T, m image.Manifest, g boot.Setup) {
	t.Helper()
	file := func(name string) image.File {
		return image.File{File: name, Size: 1, SHA256: strings.Repeat("0", 64)}
	}
	m.Kernel, m.Initrd, m.Store.File = file("kernel"), file("initrd.img"), file("store.erofs")
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.Parse(data); err != nil {
		t.Error(err)
	}
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(image.Schema))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("manifest", schema); err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiler.MustCompile("manifest").Validate(doc); err != nil {
		t.Errorf("the manifest does not keep to its schema: %v", err)
	}
	config, err := json.Marshal(m.Boot(g))
	if err != nil {
		t.Fatal(err)
	}
	if parsed, err := boot.ParseImage(config); err != nil || parsed.Prepare != "/sbin/prepare" || parsed.ListenSSH != 22 {
		t.Errorf("the agent reads %+v, %v", parsed, err)
	}
	if user := fmt.Sprint(m.User); user != "{agent 1000 1000 /home/agent /run/current-system/sw/bin/zsh}" {
		t.Errorf("the user is %s", user)
	}
	if m.Store.Label != "nix-store" || m.Readiness.System != "systemd" {
		t.Errorf("the store is %+v, and ready means %+v", m.Store, m.Readiness)
	}
}

// checkBoot is about the way from the kernel to systemd.
func checkBoot(t *testing.T, got evaluated, system string) {
	t.Helper()
	kernel := map[string]string{"x86_64-linux": "/bzImage", "aarch64-linux": "/Image"}[system]
	if !strings.HasSuffix(got.Spec.Kernel, kernel) {
		t.Errorf("the kernel is %s", got.Spec.Kernel)
	}
	for _, module := range []string{"virtio_pci", "virtio_mmio", "virtio_console", "virtio_blk", "erofs", "overlay", "virtiofs", "virtio_net", "vmw_vsock_virtio_transport", "virtio_balloon"} {
		if !slices.Contains(strings.Fields(strings.Join(got.Spec.Modules, " ")), module) {
			t.Errorf("the initrd lacks the module %s", module)
		}
	}
	if got.Initrd {
		t.Error("NixOS makes an initrd of its own, which nobody would use")
	}
	if want := []string{"loglevel=5", "lsm=landlock,yama"}; !slices.Equal(got.Cmdline, want) {
		t.Errorf("the kernel is told %q, want %q", got.Cmdline, want)
	}
	for name, end := range map[string]string{
		"init": "/lib/systemd/systemd", "prepare": "-prepare", "mkfs.ext4": "/bin/mkfs.ext4", "e2fsck": "/bin/e2fsck",
	} {
		if path := got.Sbin[name]; !strings.HasPrefix(path, "/nix/store/") || !strings.HasSuffix(path, end) {
			t.Errorf("/sbin/%s leads to %q", name, path)
		}
	}
	var mounts []string
	for line := range strings.Lines(got.Fstab) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] != "#" && !strings.HasPrefix(line, "#") {
			mounts = append(mounts, fields[1])
		}
	}
	if !slices.Equal(mounts, []string{"/"}) {
		t.Errorf("fstab should have the root only, which the agent mounts, and has %q", mounts)
	}
}

// checkGuest is about the running system.
func checkGuest(t *testing.T, got evaluated) {
	t.Helper()
	for _, unit := range []string{
		"getty@.service", "serial-getty@.service", "console-getty.service", "autovt@.service", "systemd-logind.service",
		"systemd-remount-fs.service", "systemd-timesyncd.service", "systemd-networkd.service", "systemd-networkd-wait-online.service",
		"dhcpcd.service", "sshd.service", "sshd.socket", "fstrim.timer", "nix-gc.timer", "logrotate.timer",
		"nftables.service", "systemd-journal-flush.service", "systemd-modules-load.service", "generate-shutdown-ramfs.service",
		"systemd-journald-audit.socket",
	} {
		if slices.Contains(got.Enabled, unit) {
			t.Errorf("%s should not run", unit)
		}
	}
	for _, unit := range []string{"nix-daemon.socket", "dbus.service", "multi-user.target"} {
		if !slices.Contains(got.Enabled, unit) {
			t.Errorf("%s is missing", unit)
		}
	}
	if fmt.Sprint(got.Nix["allowed-users"]) != "[agent]" || !strings.Contains(fmt.Sprint(got.Nix["trusted-users"]), "agent") {
		t.Errorf("Nix lets in %v and trusts %v", got.Nix["allowed-users"], got.Nix["trusted-users"])
	}
	for _, line := range []string{"SystemCallFilter=", "IPAddressDeny=", "NoNewPrivileges=false", "CapabilityBoundingSet=~"} {
		if !strings.Contains(got.Journald, line+"\n") {
			t.Errorf("journald is confined, which takes seconds of an emulated guest; it lacks %s:\n%s", line, got.Journald)
		}
	}
	if !slices.Contains(got.Blacklisted, "autofs4") || len(got.UserWants) != 0 {
		t.Errorf("systemd loads modules that nothing uses (blacklisted are %q), or runs tmpfiles for a user who has no rules (wanted by %q)", got.Blacklisted, got.UserWants)
	}
	if got.Firewall {
		t.Error("the plain image has a firewall, which would make each -p a matter of two configurations")
	}
	if !strings.Contains(got.Sudo, "NOPASSWD: /run/current-system/sw/bin/shutdown") {
		t.Errorf("the user may not shut the guest down:\n%s", got.Sudo)
	}
	for _, name := range []string{"git-minimal", "nix", "sudo", "zsh"} {
		if !slices.Contains(got.Packages, name) {
			t.Errorf("the plain image lacks %s", name)
		}
	}
	if len(got.Unfree) > 0 {
		t.Errorf("the plain image has packages that are not free: %q", got.Unfree)
	}
	for _, promise := range []string{"nix-store --load-db", "--sort=name", "--mtime=@1", "-L nix-store", "--owner=0"} {
		if !strings.Contains(got.BuildCommand, promise) {
			t.Errorf("the build does not use %s", promise)
		}
	}
}

// checkUnits compares the guest with the one table of units that a sandbox does
// without.
func checkUnits(t *testing.T, got evaluated) {
	t.Helper()
	type entry struct{ Unit, Only string }
	var table struct{ Masks, Generators []entry }
	text, err := os.ReadFile("../image/debian/units.json")
	if err == nil {
		err = json.Unmarshal(text, &table)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range table.Masks {
		if e.Only == "" && !slices.Contains(got.Disabled, e.Unit) {
			t.Errorf("%s is not masked", e.Unit)
		}
	}
	for _, e := range table.Generators {
		if e.Only == "" && got.Generators[e.Unit] != "/dev/null" {
			t.Errorf("%s runs", e.Unit)
		}
	}
}

// checkFirstCommands is about what a command needs that runs before systemd is
// up.
func checkFirstCommands(t *testing.T, got evaluated) {
	t.Helper()
	// Where the image has brought the rest, few programs are left. Else NixOS makes all of it, and then wrappers, on a file
	// system that lets them be of use.
	rest := got.Prepare
	for _, step := range []string{
		"\nif [[ $before == /nix/store/", "/bin/setcap cap_setpcap,cap_setgid+ep " + got.Spec.Root.Wrappers + "/bin/newgidmap ", "mount --all --fstab", "cp --no-dereference",
		"\necho /nix/store/", "/bin/modprobe > /proc/sys/kernel/modprobe\n", "wait $!\n", "\nelse\n", "/init\n",
		"umask 777; command cp", "mount -t tmpfs -o nodev,mode=755,", "/bin/security-wrapper \"$wrapperDir/sudo\"", "ln --symbolic \"$wrapperDir\"", "command chmod \"$mode\" ${modes[$mode]}",
	} {
		_, after, found := strings.Cut(rest, step)
		if !found {
			t.Fatalf("the preparation lacks %q, or has it too early:\n%s", step, got.Prepare)
		}
		rest = after
	}
	// On a disk, what is written into that directory stays, and is not for another configuration.
	if hash, ok := strings.CutPrefix(got.Spec.Root.Wrappers, "/nix/var/wrappers/"); !ok || len(hash) != 32 || !strings.HasPrefix(got.Toplevel, "/nix/store/"+hash+"-nixos-system-") {
		t.Errorf("wrappers are in %s, and the system is %s", got.Spec.Root.Wrappers, got.Toplevel)
	}
	if strings.Contains(got.Prepare, "/activate") {
		t.Errorf("the whole activation is run, of which nothing is left to do:\n%s", got.Prepare)
	}
	if want := []string{"/nix/var/nix/daemon-socket/socket"}; !slices.Equal(got.Spec.Guest.Listen, want) {
		t.Errorf("the agent listens on %q, want %q", got.Spec.Guest.Listen, want)
	}
	for _, line := range []string{"DefaultDependencies=false", "WantedBy=sockets.target local-fs.target"} {
		if !strings.Contains(got.NixSocket, line+"\n") {
			t.Errorf("the socket of Nix lacks %s:\n%s", line, got.NixSocket)
		}
	}
	if !strings.Contains(got.BuildCommand, "nix/var/nix/{daemon-socket,") {
		t.Error("the socket's directory would only be made later than the socket")
	}
	for _, line := range []string{`export PATH="/run/wrappers/bin:$PATH"`, `export PATH="$HOME/.local/bin:$PATH"`, `$HOME/.local/state/nix/profile/bin:`} {
		if !strings.Contains(got.Environment, line) {
			t.Errorf("shells begin without %s:\n%s", line, got.Environment)
		}
	}
	if !slices.Equal(got.Groups, []string{"systemd-journal"}) {
		t.Errorf("the user is in the groups %q", got.Groups)
	}
}
