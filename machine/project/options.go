package project

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
)

// Option is one of what describes a sandbox that is to be made. The flag, the
// variable, the key in files, who may set it and the schema of the files all come
// from here.
type Option struct {
	Name     string // of the flag, and of the key in files
	Letter   string // the flag's short name, if it has one
	Variable bool   // the environment can set it, by SANDBOX_NAME
	Kind     Kind
	Trust    Trust
	Values   []string // all that there are, if they can be counted
	Default  string
	Usage    string // what it does, with the word for its value in backquotes

	Hidden  bool // for those who develop this program
	Saved   bool // a saved state of the booted image depends on it, or on how long its boot may take
	Command bool // it is about the command that runs in the sandbox

	// Adds is the last of the layers whose values all count. A layer after it has them to itself.
	Adds Layer
}

// Kind is what values an option takes.
type Kind int

// The kinds.
const (
	Text     Kind = iota
	Number        // an integer
	Size          // MiB as an integer, or a text such as "4G"
	Duration      // a text such as "90s"
	List          // text, or an array of it
	Switch        // on or off
	Image         // the name of an image that is installed; a flag may name a directory as well
	Flake         // a reference to a flake
	Shares        // a list of shared directories
)

// Trust says who may set an option, besides the command line and the environment.
type Trust int

// From the narrowest to the widest.
const (
	// Caller: no file. It names one sandbox, or makes it less safe.
	Caller Trust = iota
	// User: the user's own file. The option opens something of the host to the guest, or the guest to somebody,
	// or decides how long it stays, so a project cannot decide it.
	User
	// Consent: a project's file too, where it counts only if the user has consented to it (see Request): it opens
	// something.
	Consent
	// Narrower: a project's file too, if its value opens no more than the user's own.
	Narrower
	// Inside: a project's file too, for what lies in the project.
	Inside
	// Project: a project's file too.
	Project
)

// Options are all options, in the order in which people read about them.
func Options() []Option {
	var modes []string
	for _, m := range network.Modes() {
		modes = append(modes, string(m))
	}
	var presets []string
	for _, p := range policy.Presets() {
		presets = append(presets, p.Name)
	}
	return []Option{
		{Name: "name", Usage: "`NAME` of the sandbox, which is its host name too (default: made up)"},
		{Name: "image", Variable: true, Kind: Image, Trust: Project, Usage: "`IMAGE` to start: NAME, NAME@DIGEST, or a directory, written with a slash, whose image is then installed (default: the store's default image)"},
		{Name: "flake", Variable: true, Kind: Flake, Trust: Inside, Usage: "start the image of this `FLAKE`, such as .#image; it is built with Nix if that was not done before, and sandbox image build FLAKE builds it anew"},
		{Name: "arch", Variable: true, Usage: "`ARCH` of the guest: x86_64 or aarch64 (default: this machine's); another than this machine's is emulated"},
		{Name: "memory", Letter: "m", Variable: true, Kind: Size, Trust: Project, Saved: true, Usage: "memory of the guest, as `SIZE` such as 512M or 4G (default: the image's)"},
		{Name: "cpus", Variable: true, Kind: Number, Trust: Project, Saved: true, Usage: "`NUMBER` of virtual CPUs (default: the image's)"},
		{Name: "disk", Variable: true, Kind: Size, Trust: Project, Saved: true, Usage: "keep what is written outside home and shares, such as installed packages, on a disk of `SIZE` such as 20G, which takes only the space that it needs (default: in memory, forgotten at stop)"},
		{Name: "cache", Kind: List, Trust: Project, Adds: ProjectFile, Usage: "keep the guest's `DIRECTORY`, such as node_modules or ~/.npm, on a disk of its own, with which later sandboxes of the project begin too; a relative one is below the first share, and ~ is the guest's home"},
		{Name: "no-home", Kind: Switch, Saved: true, Usage: "keep the home in the guest, where all else is, and not in a directory of this machine that outlives each stop; forks of such a sandbox without shares have their memory in common"},
		{Name: "home-quota", Kind: Size, Trust: User, Saved: true, Usage: "let the home hold no more than `SIZE` such as 10G: what is written beyond fails"},
		{Name: "share", Letter: "v", Kind: Shares, Trust: Inside, Usage: "share a directory, or a single file, as `HOST[:GUEST][:OPTION,...]`; GUEST is relative to the guest's home; ro makes it read-only, cow keeps what the guest writes in the sandbox until you take it over, clone gives the guest a clone of the repository instead, same-path gives it the path in the guest that it has here, quota=SIZE bounds what it holds, watch tells programs in the guest that watch files of changes made on this machine, and allow=PATTERN, refuse=PATTERN, hide=PATTERN and rules=none change which of its files the guest cannot write or read"},
		{Name: "allow-weak-isolation", Kind: Switch, Usage: "run also where this machine does not offer what keeps a guest in that has taken over QEMU or virtiofsd: it then has all your files"},
		{Name: "allow-dangerous-share", Kind: Switch, Usage: "share even /, a whole home, or a directory of keys: the guest can then read, and unless :ro also destroy, what is in it"},
		{Name: "publish", Letter: "p", Kind: List, Trust: Consent, Adds: ProjectFile, Usage: "forward a port of this machine as `[IP:]HOST:GUEST[/udp]`; IP is 127.0.0.1 unless written; auto forwards each TCP port that a program in the guest listens on, of the same number where that is free"},
		{Name: "net", Variable: true, Trust: Narrower, Values: modes, Default: string(network.ModePublic), Saved: true, Usage: "`MODE` of the network: " + or(modes)},
		{Name: "allow", Kind: List, Trust: Consent, Adds: ProjectFile, Usage: "open `RULE` in the network modes allowlist and ask: a name such as api.example.com, *.example.com for those below, an address or network; then :PORT or :* instead of ports 80 and 443, and /udp; a URL with methods before it, such as GET,HEAD https://api.example.com/v1/**, for these requests only; git:URL for one repository, or git:origin for that of each shared one; or preset:NAME, of " + or(presets) + "; in the mode public, only addresses that are nearer than the Internet"},
		{Name: "deny", Kind: List, Trust: Project, Adds: Flag, Usage: "close what `RULE` names, whatever opens it: written as what is allowed, for whole hosts only, and for all ports where it names none; in the mode public, only addresses"},
		{Name: "git-push-only", Kind: Switch, Usage: "open the repositories from which those that are shared were cloned, for fetch and push, and nothing else that is not allowed: the network mode allowlist, and the rule git:origin"},
		{Name: "git-credentials", Kind: Switch, Usage: "let the guest fetch from and push to the repositories from which those that are shared were cloned, by https and as you: at each start, your git is asked for its credentials, whose password stays on this machine as a secret's value does; no host is opened by it"},
		{Name: "allow-host-port", Kind: List, Trust: Consent, Adds: ProjectFile, Usage: "let the guest reach `PORT[:NAME]` of this machine's 127.0.0.1, as host.sandbox.internal and, with NAME, also as NAME.sandbox.internal or as a whole NAME such as host.docker.internal"},
		{Name: "secret", Kind: List, Trust: Consent, Adds: ProjectFile, Usage: "let the guest use a secret that stays on this machine, as `NAME[=SOURCE]@HOST[:PORT][/PATH][,HOST...]`: its variable NAME has a placeholder, and requests over HTTPS to these hosts, and to no others, have the secret in the place of that when they leave this machine, in the headers that are for keys; SOURCE is env:VARIABLE, file:PATH, command:COMMAND, store:NAME or login:PROVIDER (default: your variable NAME, or else what you have stored by that name); ,header=NAME narrows it to that header, and ,query and ,body add these; with ,ttl=TIME a command or a file is asked again each time that is over; or aws:PROFILE[@HOST...], to have requests to AWS, or to these hosts, signed by a profile of your ~/.aws; no host is opened by it"},
		{Name: "agent", Trust: Consent, Values: AIAgents(), Usage: "run this `AI` agent, unless a command is given: " + or(AIAgents()) + "; it has the network mode allowlist with the hosts that it needs, and its key or token as a secret, which is your variable, what you have stored by that name, or your login at its provider; what you set yourself wins"},
		{Name: "agent-home", Trust: Narrower, Values: AgentHomes, Default: AgentHomeNone, Usage: "`WHAT` the AI agent finds in its new home: none, config (a copy of what is harmless of your configuration of it, such as skills, commands, memory files and some settings, and no keys, hooks or servers), or sessions (that, and its sessions are kept for the project's later sandboxes)"},
		{Name: "trust-host-ca", Trust: User, Usage: "make the guest's programs believe the certificates in `FILE`, in PEM, such as those of a company's proxy, or those that were added to this machine: system"},
		{Name: "upstream-proxy", Trust: User, Usage: "let the guest's TCP connections to the Internet go by way of the proxy at `URL`, such as http://proxy.example.com:3128 or socks5://127.0.0.1:1080, or none (default: what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say at each start)"},
		{Name: "ssh-port", Variable: true, Kind: Number, Trust: User, Usage: "`PORT` of 127.0.0.1 that is forwarded to the guest's ssh (default: 2222, or a free one)"},
		{Name: "ssh-key", Kind: List, Trust: User, Usage: "public key `FILE` that may log in by ssh (default: ~/.ssh/*.pub)"},
		{Name: "ssh-agent", Kind: List, Trust: User, Usage: "let the guest log in and sign with `KEY` of your ssh agent, as long as it runs: the comment or fingerprint that ssh-add -l shows, the path of a public key, or all; with ask: before it, or ask for all, you are asked at each use (sandbox net ask); the key itself stays on this machine"},
		{Name: "gpg-agent", Kind: List, Trust: User, Usage: "let the guest sign with `KEY` of your gpg-agent, such as commits, as long as it runs: an OpenPGP key's fingerprint, ID or address; with ask: before it, you are asked at each use (sandbox net ask); the key itself stays on this machine"},
		{Name: "transport", Default: string(agent.TransportAuto), Hidden: true, Saved: true, Usage: "`CHANNEL` to the guest's agent: auto, vsock or serial"},
		{Name: "machine", Hidden: true, Saved: true, Usage: "QEMU machine `TYPE`: microvm, q35 or virt"},
		{
			Name: "restart", Variable: true, Trust: User, Default: string(machine.RestartOnReboot),
			Values: []string{string(machine.RestartNo), string(machine.RestartOnReboot), string(machine.RestartAlways)},
			Usage:  "`WHEN` the sandbox runs again that ended by itself: no, on-reboot (of the guest), or always (also when it powered off or crashed)",
		},
		{Name: "timeout", Variable: true, Kind: Duration, Trust: Project, Default: machine.DefaultReadyTimeout.String(), Saved: true, Usage: "how `LONG` the guest may take until commands can run"},
		{Name: "workdir", Letter: "w", Trust: Project, Command: true, Usage: "`DIRECTORY` in the guest to run in (default: the first shared directory, else the home)"},
	}
}

// Find is the option of that name, which there must be.
func Find(name string) Option {
	all := Options()
	return all[slices.IndexFunc(all, func(o Option) bool { return o.Name == name })]
}

// Environment is the variable that can set the option, or nothing.
func (o Option) Environment() string {
	if !o.Variable {
		return ""
	}
	return "SANDBOX_" + strings.ToUpper(strings.ReplaceAll(o.Name, "-", "_"))
}

// InFile tells whether a file may have the option: a project's, or the user's own.
func (o Option) InFile(l Layer) bool {
	return o.Trust > User || l == UserFile && o.Trust == User
}

// Layer is one of the places that values come from.
type Layer int

// The layers, each of which yields to those after it.
const (
	Default Layer = iota // ours
	OfImage
	UserFile
	ProjectFile
	Environment
	Flag
)

// Source is where the value of an option came from.
type Source struct {
	Layer
	Name string // of the variable, or of the file with its path
}

// OfFile tells whether the value stands in a file.
func (s Source) OfFile() bool { return s.Layer == ProjectFile || s.Layer == UserFile }

// And is a source of values of which some came from other.
func (s Source) And(other Source) Source {
	return Source{s.Layer, s.String() + ", " + other.String()}
}

func (s Source) String() string {
	switch {
	case s.Name != "":
		return s.Name
	case s.Layer == OfImage:
		return "image"
	case s.Layer == Flag:
		return "flag"
	}
	return "default"
}

// MarshalText makes the source a text in JSON.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// or lists alternatives as a sentence does.
func or(words []string) string {
	last := len(words) - 1
	if last == 0 {
		return words[0]
	}
	return fmt.Sprintf("%s or %s", strings.Join(words[:last], ", "), words[last])
}
