package virtiofs

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/hostdir"
)

// DangerError reports a directory that holds more than a guest should be given. It is returned by Share.Admit
// and Share.Open, and can be overridden by CheckOptions.AllowDangerous.
type DangerError struct {
	Source string // the directory that was to be shared
	Danger string // what makes it dangerous: Source itself, or something above or below it
	Reason string // what Danger is, as in "keys of OpenSSH"
}

// Error says what the guest would get.
func (e *DangerError) Error() string {
	relation := "contains " + e.Danger + ","
	switch {
	case e.Source == e.Danger:
		relation = "is"
	case within(e.Source, e.Danger):
		relation = "lies in " + e.Danger + ","
	}
	return fmt.Sprintf("sharing %s is refused, because it %s %s: share a directory with just the files that the guest needs", e.Source, relation, e.Reason)
}

// danger is a directory or file that is dangerous to share, as is everything below it and everything above it.
type danger struct {
	path   string
	reason string
	only   bool     // the directory itself and those above it, but not those below it
	except []string // harmless directories below it; themselves they are as dangerous as path
}

// hostDangers are the system's. Missing ones do no harm.
var hostDangers = []danger{
	{path: "/", reason: "the whole host", only: true},
	{path: "/boot", reason: "what the host boots"},
	{path: "/dev", reason: "the host's devices", except: []string{"/dev/shm"}},
	{path: "/etc", reason: "the configuration of the host"},
	{path: "/home", reason: "the homes of all users", only: true},
	{path: "/nix/var", reason: "the state of Nix, which says what is run"},
	{path: "/proc", reason: "the host's processes"},
	{path: "/root", reason: "the home of the host's root"},
	{path: "/run", reason: "the sockets of the host's services", except: []string{"/run/media"}},
	{path: "/sys", reason: "the host's devices"},
	{path: "/usr", reason: "the programs of the host", except: []string{"/usr/src", "/usr/local/src", "/usr/share"}},
	{path: "/var/lib/containerd", reason: "the containers of containerd"},
	{path: "/var/lib/containers", reason: "the containers of Podman"},
	{path: "/var/lib/docker", reason: "the containers of Docker"},
	{path: "/var/lib/dpkg", reason: "the scripts of the host's packages, which root runs"},
	{path: "/var/lib/incus", reason: "the machines of Incus"},
	{path: "/var/lib/kubelet", reason: "the containers and secrets of Kubernetes"},
	{path: "/var/lib/libvirt", reason: "the machines of libvirt"},
	{path: "/var/lib/lxc", reason: "the containers of LXC"},
	{path: "/var/lib/lxd", reason: "the machines of LXD"},
	{path: "/var/lib/machines", reason: "the machines of systemd"},
	{path: "/var/lib/rancher", reason: "the containers and secrets of Kubernetes"},
	{path: "/var/lib/sandbox", reason: "the state of sandboxes"},
	{path: "/var/lib/systemd", reason: "the state of systemd"},
	{path: "/var/log", reason: "the logs of the host"},
	{path: "/var/spool/cron", reason: "commands that the host runs by the clock"},
}

// homeDangers are relative to a user's home. Where two are true of a directory, the first one is told.
var homeDangers = []danger{
	// Logins and keys.
	{path: ".Xauthority", reason: "the key to your screen"},
	{path: ".aws", reason: "logins of Amazon Web Services"},
	{path: ".azure", reason: "logins of Microsoft Azure"},
	{path: ".config/1Password", reason: "a password store"},
	{path: ".config/Bitwarden", reason: "a password store"},
	{path: ".config/BraveSoftware", reason: "a browser's profile"},
	{path: ".config/chromium", reason: "a browser's profile"},
	{path: ".config/gcloud", reason: "logins of Google Cloud"},
	{path: ".config/gh", reason: "logins of GitHub"},
	{path: ".config/google-chrome", reason: "a browser's profile"},
	{path: ".config/keepassxc", reason: "a password store"},
	{path: ".config/microsoft-edge", reason: "a browser's profile"},
	{path: ".config/sops", reason: "keys of SOPS"},
	{path: ".config/vivaldi", reason: "a browser's profile"},
	{path: ".docker", reason: "logins of Docker"},
	{path: ".electrum", reason: "a wallet"},
	{path: ".fly", reason: "logins of Fly.io"},
	{path: ".git-credentials", reason: "logins of git"},
	{path: ".gnupg", reason: "keys of GnuPG"},
	{path: ".kube", reason: "logins of Kubernetes"},
	{path: ".local/share/keyrings", reason: "a password store"},
	{path: ".local/share/kwalletd", reason: "a password store"},
	{path: ".mozilla", reason: "a browser's profile"},
	{path: ".netrc", reason: "logins of curl, git and others"},
	{path: ".oci", reason: "logins of Oracle Cloud"},
	{path: ".password-store", reason: "a password store"},
	{path: ".pki", reason: "keys and certificates"},
	{path: ".pulumi", reason: "logins of Pulumi"},
	{path: ".pypirc", reason: "logins of PyPI"},
	{path: ".ssh", reason: "keys of OpenSSH"},
	{path: ".terraform.d", reason: "logins of Terraform"},
	{path: ".thunderbird", reason: "a mail program's profile"},
	{path: ".vault-token", reason: "a login of Vault"},
	{path: ".var/app", reason: "profiles of Flatpak programs"},
	{path: "snap", reason: "profiles of snap programs"},
	// AI agents: logins, and settings with commands that they run.
	{path: ".aider.conf.yml", reason: "settings of Aider"},
	{path: ".claude", reason: "logins, settings and hooks of Claude Code"},
	{path: ".claude.json", reason: "logins and settings of Claude Code"},
	{path: ".codex", reason: "logins and settings of Codex"},
	{path: ".continue", reason: "logins and settings of Continue"},
	{path: ".copilot", reason: "logins and settings of Copilot"},
	{path: ".cursor", reason: "logins and extensions of Cursor"},
	{path: ".gemini", reason: "logins and settings of Gemini"},
	{path: ".qwen", reason: "logins and settings of Qwen Code"},
	// Languages' tools: logins, and programs and libraries that the user runs.
	{path: ".bun", reason: "programs that you run"},
	{path: ".bundle", reason: "logins and settings of Bundler"},
	{path: ".cargo", reason: "logins of crates.io and programs that you run"},
	{path: ".composer", reason: "logins and programs of Composer"},
	{path: ".deno", reason: "programs that you run"},
	{path: ".dotnet", reason: "programs that you run"},
	{path: ".gem", reason: "logins of RubyGems and programs that you run"},
	{path: ".gradle", reason: "logins of Gradle and scripts that it runs"},
	{path: ".ivy2", reason: "logins and libraries of Ivy"},
	{path: ".m2", reason: "logins of Maven and libraries that it runs"},
	{path: ".npm", reason: "packages that npm installs and runs"},
	{path: ".npmrc", reason: "logins of npm"},
	{path: ".nuget", reason: "logins of NuGet and libraries that it runs"},
	{path: ".nvm", reason: "programs that you run"},
	{path: ".pyenv", reason: "programs that you run"},
	{path: ".rbenv", reason: "programs that you run"},
	{path: ".asdf", reason: "programs that you run"},
	{path: ".rustup", reason: "programs that you run"},
	{path: ".sdkman", reason: "programs that you run"},
	{path: ".volta", reason: "programs that you run"},
	{path: ".yarnrc.yml", reason: "logins of Yarn"},
	{path: "go/bin", reason: "programs that you run"},
	{path: "bin", reason: "programs that you run"},
	{path: ".local/bin", reason: "programs that you run"},
	{path: ".local/lib", reason: "libraries that your programs load"},
	// What runs when the user logs in, opens a shell or an editor.
	{path: ".bash_login", reason: "commands that your shell runs"},
	{path: ".bash_logout", reason: "commands that your shell runs"},
	{path: ".bash_profile", reason: "commands that your shell runs"},
	{path: ".bashrc", reason: "commands that your shell runs"},
	{path: ".bashrc.d", reason: "commands that your shell runs"},
	{path: ".emacs.d", reason: "commands that your editor runs"},
	{path: ".gitconfig", reason: "settings of git, some of which are commands"},
	{path: ".local/share/applications", reason: "programs that your desktop starts"},
	{path: ".local/share/bash-completion", reason: "commands that your shell runs"},
	{path: ".local/share/containers", reason: "the containers of Podman"},
	{path: ".local/share/dbus-1", reason: "services that your session starts"},
	{path: ".local/share/fish", reason: "commands that your shell runs"},
	{path: ".local/share/flatpak", reason: "programs that you run"},
	{path: ".local/share/gnome-shell", reason: "extensions that your desktop runs"},
	{path: ".local/share/nvim", reason: "commands that your editor runs"},
	{path: ".local/share/plasma", reason: "extensions that your desktop runs"},
	{path: ".local/share/systemd", reason: "services that your session starts"},
	{path: ".local/share/zsh", reason: "commands that your shell runs"},
	{path: ".oh-my-zsh", reason: "commands that your shell runs"},
	{path: ".profile", reason: "commands that your shell runs"},
	{path: ".vim", reason: "commands that your editor runs"},
	{path: ".vscode", reason: "extensions that your editor runs"},
	{path: ".vscode-server", reason: "extensions that your editor runs"},
	{path: ".xinitrc", reason: "commands that your session runs"},
	{path: ".xprofile", reason: "commands that your session runs"},
	{path: ".zprofile", reason: "commands that your shell runs"},
	{path: ".zshenv", reason: "commands that your shell runs"},
	{path: ".zshrc", reason: "commands that your shell runs"},
	{path: ".config/autostart", reason: "programs that your session starts"},
	{path: ".config/systemd", reason: "services that your session starts"},
	{path: ".config", reason: "settings of your programs, some of which are logins or commands that they run"},
}

// home is where a user of the host lives.
type home struct {
	user string // empty: the caller
	dir  string
}

// firstUID is the first user id of a person (login.defs). Those below are services, whose homes are where their
// data is, such as /var/www.
const firstUID = 1000

// homesOf reads a passwd(5) and returns the homes of the host's people and of root.
func homesOf(passwd io.Reader) ([]home, error) {
	var homes []home
	lines := bufio.NewScanner(passwd)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), ":")
		if len(fields) < 7 {
			continue
		}
		uid, err := strconv.Atoi(fields[2])
		dir := filepath.Clean(fields[5])
		if err != nil || (uid != 0 && uid < firstUID) || uid == overflowID || !filepath.IsAbs(dir) || dir == "/" {
			continue
		}
		homes = append(homes, home{fields[0], dir})
	}
	return homes, lines.Err()
}

// hostHomes are the caller's home and everybody's: those in passwd and, for users who come from a directory
// service, all in /home.
func hostHomes(o CheckOptions) ([]home, error) {
	var homes []home
	if filepath.IsAbs(o.Home) {
		homes = append(homes, home{"", filepath.Clean(o.Home)})
	}
	passwd, err := os.Open("/etc/passwd")
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	if err == nil {
		defer passwd.Close()
		known, err := homesOf(passwd)
		if err != nil {
			return nil, fmt.Errorf("reading /etc/passwd: %w", err)
		}
		homes = append(homes, known...)
	}
	entries, _ := os.ReadDir("/home") // one that is missing or closed has no home to give away
	for _, e := range entries {
		homes = append(homes, home{e.Name(), filepath.Join("/home", e.Name())})
	}
	return homes, nil
}

// judge finds out whether the open directory is, contains or lies in one that is dangerous to share.
func judge(dir *hostdir.Dir, o CheckOptions) error {
	homes, err := hostHomes(o)
	if err != nil {
		return err
	}
	j := judgement{source: dir.Path()}
	if j.node, err = dir.Node(); err != nil {
		return err
	}
	if j.line, err = dir.Lineage(); err != nil {
		return err
	}
	// Before the system's: that a directory is the home says more than that it is /root.
	for _, h := range homes {
		if err := j.home(h); err != nil {
			return err
		}
	}
	for _, private := range o.Private {
		if err := j.check(danger{path: private, reason: "the state of this program"}); err != nil {
			return err
		}
	}
	for _, d := range hostDangers {
		if filepath.IsAbs(o.Home) && within(filepath.Clean(o.Home), d.path) {
			d.only = true // the home is in there, as is root's: what lies in the home is for homeDangers to judge
		}
		if err := j.check(d); err != nil {
			return err
		}
	}
	return nil
}

// judgement compares directories with the one to be shared, by their inodes: a bind mount is another path to the
// same directory, and a path may be somebody's to change.
type judgement struct {
	source string // for exceptions and messages
	node   hostdir.Node
	line   hostdir.Lineage
}

// home checks what is dangerous in a home. What lies in somebody else's is for root to share, except what is
// dangerous there too.
func (j judgement) home(h home) error {
	itself := danger{path: h.dir, reason: "your whole home, with its keys and logins", only: true}
	if h.user != "" {
		itself.reason = fmt.Sprintf("the home of the user %s, with its keys and logins", h.user)
	}
	if err := j.check(itself); err != nil {
		return err
	}
	// A link in the home may lead to the directory from elsewhere, as in ~/.aws -> ~/dotfiles/aws, but whoever
	// is to share that shares it from within the home, or shares the caller's.
	if node, err := hostdir.NodeAt(h.dir); h.user != "" && (err != nil || !j.line[node]) {
		return nil
	}
	for _, d := range homeDangers {
		d.path = filepath.Join(h.dir, d.path)
		if h.user != "" {
			d.reason += " (of the user " + h.user + ")"
		}
		if err := j.check(d); err != nil {
			return err
		}
	}
	return nil
}

func (j judgement) check(d danger) error {
	path, err := filepath.EvalSymlinks(d.path)
	if err != nil {
		return nil // what is not there, or cannot be reached by the caller, cannot be given away
	}
	d.path = path
	threatens, err := j.threatens(d)
	if err != nil {
		return fmt.Errorf("comparing %s, which is to be shared, with %s, which must not be: %w", j.source, d.path, err)
	}
	if threatens {
		return &DangerError{Source: j.source, Danger: d.path, Reason: d.reason}
	}
	return nil
}

func (j judgement) threatens(d danger) (bool, error) {
	node, err := hostdir.NodeAt(d.path)
	if err != nil {
		return false, nil // as in check
	}
	if node == j.node {
		return true, nil
	}
	if j.line[node] && !d.only { // it lies in there
		for _, dir := range d.except {
			if strings.HasPrefix(j.source, dir+"/") {
				return false, nil
			}
		}
		return true, nil
	}
	// It may contain it. The caller can have no permission to enter the danger, but has entered what is above.
	above, err := hostdir.Open(filepath.Dir(d.path))
	if err != nil {
		return false, nil // as in check
	}
	defer above.Close()
	line, err := above.Lineage()
	return line[j.node], err
}
