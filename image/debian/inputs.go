package debian

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sourcery-zone/sandbox/image/rootfs"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// revision counts changes of this recipe that its tables do not show.
const revision = 1

// inputs is everything that decides the bytes of a root file system, except
// what the archive holds on the day of the build.
type inputs struct {
	Revision int            `json:"revision"`
	Suite    string         `json:"suite"`
	Arch     string         `json:"arch"` // as Debian names it
	Sources  []string       `json:"sources,omitempty"`
	Packages []string       `json:"packages"`
	NPM      []string       `json:"npm,omitempty"` // what it is to install
	NPMTool  *npmTool       `json:"npm_tool,omitempty"`
	Epoch    int64          `json:"epoch,omitempty"` // seconds; 0: the archive's own date
	Hooks    []hook         `json:"hooks"`
	Overlay  []rootfs.Entry `json:"overlay"`
	Dropped  []string       `json:"dropped"`
	Block    int            `json:"block"` // bytes
	Modules  []string       `json:"modules"`
}

// hook is a shell command that mmdebstrap runs with the new system's root as $1.
type hook struct {
	Stage  string `json:"stage"`
	Script string `json:"script"`
}

// barePackages is what every image of this recipe has besides Debian's
// essential packages.
func barePackages() []string {
	return []string{
		"systemd-sysv", "kmod", // a booting system
		"passwd", "sudo", // its user, who may end it
		"e2fsprogs", // mkfs.ext4 and e2fsck, which the agent runs on the sandbox's disk
	}
}

// blockSize is the store's, in bytes. Small blocks save 14 MB of a usual image's
// 412, and what reads many small files is faster for it. The kernel of older
// suites mounts no blocks below its page size.
func blockSize(suite string) int {
	if slices.Contains([]string{"bookworm", "oldstable", "bullseye", "oldoldstable"}, suite) {
		return 4096
	}
	return 1024
}

// usualPackages is what people and AI agents expect besides.
func usualPackages() []string {
	return []string{
		"apt", "dbus", "udev",
		"libpam-systemd", "dbus-user-session", // the user's own services
		"uidmap",                                                                         // containers without root
		"openssh-server", "openssh-sftp-server", "ca-certificates", "iproute2", "tzdata", // a network, and its time
		"zsh", "less", "procps", "vim", "tmux", "ncurses-base", "ncurses-term", // a shell to live in
		"git", "curl", "ripgrep", "python3", "nodejs", // what AI agents call, with npm
	}
}

// kernelPackage is built for virtual machines: small, with virtio built in.
func kernelPackage(arch string) string { return "linux-image-cloud-" + arch }

// debianArch is Debian's name of an architecture.
func debianArch(arch string) (string, error) {
	switch arch {
	case "x86_64":
		return "amd64", nil
	case "aarch64":
		return "arm64", nil
	}
	return "", fmt.Errorf("the Debian recipe knows no architecture %q: use x86_64 or aarch64", arch)
}

// resolve turns what was asked for into inputs, whose order does not depend on
// the order of the question.
func (o Options) resolve(aptDir string) (inputs, error) {
	arch, err := debianArch(o.Arch)
	if err != nil {
		return inputs{}, err
	}
	in := inputs{
		Revision: revision, Suite: o.Suite, Arch: arch,
		Packages: append(barePackages(), kernelPackage(arch)),
		Overlay:  overlay(), Dropped: dropped(), Block: blockSize(o.Suite), Modules: bootModules(),
	}
	if err := checkNames("suite", o.Suite); err != nil {
		return inputs{}, err
	}
	if err := checkNames("package", o.Packages...); err != nil {
		return inputs{}, err
	}
	if !o.Bare {
		in.Packages = append(in.Packages, usualPackages()...)
	} else if len(o.With) > 0 {
		return inputs{}, remedy.Add(errors.New("AI agents are installed by npm, which a bare image does not have"), remedy.LeaveOut, "bare")
	}
	in.Packages = append(in.Packages, o.Packages...)
	slices.Sort(in.Packages)
	in.Packages = slices.Compact(in.Packages)
	for _, with := range o.With {
		spec, err := npmSpec(with)
		if err != nil {
			return inputs{}, err
		}
		in.NPM = append(in.NPM, spec)
	}
	slices.Sort(in.NPM)
	in.NPM = slices.Compact(in.NPM)
	if !o.Epoch.IsZero() {
		in.Epoch = o.Epoch.Unix()
	}
	if in.Sources, err = o.sources(aptDir); err != nil {
		return inputs{}, err
	}
	if !o.Bare {
		npm := ourNPM()
		in.NPMTool, in.Overlay = &npm, append(in.Overlay, npm.settings())
	}
	in.Hooks = in.hooks(o.Bare)
	return in, nil
}

func (o Options) sources(aptDir string) ([]string, error) {
	if len(o.Mirrors) == 0 {
		return hostSources(aptDir, o.Suite), nil
	}
	var lines []string
	for _, m := range o.Mirrors {
		switch {
		case strings.HasPrefix(m, "deb "):
			lines = append(lines, m)
		case strings.Contains(m, "://"):
			lines = append(lines, mirrorSources(m, o.Suite)...)
		default:
			return nil, fmt.Errorf("the mirror %q is neither an address (SCHEME://…) nor a line of apt's sources.list (deb …)", m)
		}
	}
	return lines, nil
}

// hooks of mmdebstrap. What a table of files can say is in overlay instead.
func (in inputs) hooks(bare bool) []hook {
	hooks := []hook{
		// Packages that have their manuals elsewhere, such as those of Java and PostgreSQL, link them to where there are none.
		{"essential", `mkdir -p "$1/usr/share/man/man1" "$1/usr/share/man/man7"`},
		// "*": no password fits, yet the account is not locked.
		{"customize", fmt.Sprintf(`chroot "$1" useradd --uid %d --user-group --no-create-home --home-dir %s --shell %s --password '*' %s`,
			userID, userHome, userShell(bare), userName)},
	}
	if in.NPMTool != nil {
		hooks = append(hooks, in.NPMTool.unpackHook())
	}
	if len(in.NPM) > 0 {
		hooks = append(hooks, hook{"customize", npmHook(in.NPM)})
	}
	return hooks
}

// digest names the inputs. Passwords of mirrors are no part of it.
func (in inputs) digest() string {
	public := in
	public.Sources = nil
	for _, s := range in.Sources {
		public.Sources = append(public.Sources, withoutPassword(s))
	}
	data, err := json.Marshal(public)
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// checkNames keeps what becomes an argument of apt from being an option or a
// pattern of it.
func checkNames(what string, names ...string) error {
	for _, name := range names {
		if name == "" {
			return fmt.Errorf("the name of a %s is empty", what)
		}
		bad := strings.ContainsFunc(name, func(r rune) bool {
			return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789.+-:=~", r)
		})
		if bad || strings.HasPrefix(name, "-") {
			return fmt.Errorf("%q is not the name of a Debian %s", name, what)
		}
	}
	return nil
}
