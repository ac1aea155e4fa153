package virtiofs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// CheckOptions is what Share.Check has to know of the host.
type CheckOptions struct {
	// Home is the home directory of the calling user.
	Home string
	// Private are further directories that a guest must never see or change, such as the program's own state.
	Private []string
	// AllowDangerous lets directories pass that a DangerError would name.
	AllowDangerous bool
}

// DangerError reports a directory that holds more than a guest should be given. It is returned by
// Share.Check and can be overridden by CheckOptions.AllowDangerous.
type DangerError struct {
	Source string // the directory that was to be shared
	Danger string // the directory that makes it dangerous: Source itself, one above or one below it
	Reason string // what Danger is, as in "keys of OpenSSH"
}

// Error says what the guest would get.
func (e *DangerError) Error() string {
	relation := "is"
	switch {
	case e.Source == e.Danger:
	case within(e.Source, e.Danger):
		relation = "lies in " + e.Danger + ","
	default:
		relation = "contains " + e.Danger + ","
	}
	return fmt.Sprintf("sharing %s is refused, because it %s %s: share a directory with just the files that the guest needs", e.Source, relation, e.Reason)
}

// danger is a directory that is dangerous to share, as is everything below it and everything above it.
type danger struct {
	path   string
	reason string
	only   bool     // the directory itself and those above it, but not those below it
	except []string // harmless directories below it; themselves they are as dangerous as path
}

// hostDangers are the system's directories. Missing ones do no harm.
var hostDangers = []danger{
	{path: "/", reason: "the whole host", only: true},
	{path: "/boot", reason: "what the host boots"},
	{path: "/dev", reason: "the host's devices", except: []string{"/dev/shm"}},
	{path: "/etc", reason: "the configuration of the host"},
	{path: "/proc", reason: "the host's processes"},
	{path: "/root", reason: "the home of the host's root"},
	{path: "/run", reason: "the sockets of the host's services", except: []string{"/run/media"}},
	{path: "/sys", reason: "the host's devices"},
	{path: "/var/lib/sandbox", reason: "the state of sandboxes"},
}

// homeDangers are relative to the user's home.
var homeDangers = []danger{
	{path: ".", reason: "your whole home, with its keys and logins", only: true},
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
	{path: ".config/vivaldi", reason: "a browser's profile"},
	{path: ".docker", reason: "logins of Docker"},
	{path: ".gnupg", reason: "keys of GnuPG"},
	{path: ".kube", reason: "logins of Kubernetes"},
	{path: ".local/share/keyrings", reason: "a password store"},
	{path: ".local/share/kwalletd", reason: "a password store"},
	{path: ".mozilla", reason: "a browser's profile"},
	{path: ".password-store", reason: "a password store"},
	{path: ".ssh", reason: "keys of OpenSSH"},
	{path: ".thunderbird", reason: "a mail program's profile"},
	{path: ".var/app", reason: "profiles of Flatpak programs"},
	{path: "snap", reason: "profiles of snap programs"},
}

// Check tells whether the share can and may be served: its source must be a directory that the calling user
// can read, and not be, contain or lie in one that is dangerous to share.
func (s Share) Check(o CheckOptions) error {
	if !filepath.IsAbs(s.Source) || !utf8.ValidString(s.Source) {
		return fmt.Errorf("the directory %q cannot be shared: its path must be absolute and in UTF-8", s.Source)
	}
	source, err := readableDirectory(s.Source)
	if err != nil {
		return err
	}
	if o.AllowDangerous {
		return nil
	}
	return checkDanger(source, dangersFor(o))
}

// readableDirectory returns the directory's path with symbolic links resolved.
func readableDirectory(name string) (string, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("the directory %s to share does not exist: correct the path, or make it with mkdir -p", name)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("the directory %s to share cannot be reached by this user: share another, or get the permission to enter the directories above it", name)
	case err != nil:
		return "", fmt.Errorf("looking at the directory to share: %w", err)
	case !info.IsDir():
		return "", fmt.Errorf("%s is not a directory, and only directories can be shared: share %s instead", name, filepath.Dir(name))
	}
	if err := tryRead(name); err != nil {
		return "", fmt.Errorf("the directory %s to share cannot be read by this user: share another, or get the permission to read it (chmod u+rx, if it is yours)", name)
	}
	source, err := filepath.EvalSymlinks(name)
	if err != nil {
		return "", fmt.Errorf("resolving the directory to share: %w", err)
	}
	return source, nil
}

// tryRead lists the directory and looks at one entry, which takes both the permission to read and to search.
func tryRead(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	if _, err := dir.Readdirnames(1); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = os.Stat(filepath.Join(name, "."))
	return err
}

// dangersFor lists all dangerous directories, with symbolic links resolved, since the share's source is.
func dangersFor(o CheckOptions) []danger {
	var all []danger
	add := func(d danger, name string) {
		d.path = name
		if resolved, err := filepath.EvalSymlinks(name); err == nil {
			d.path = resolved
		}
		all = append(all, d)
	}
	// Before the system's: that a directory is the home says more than that it is /root.
	if filepath.IsAbs(o.Home) {
		for _, d := range homeDangers {
			add(d, filepath.Join(o.Home, d.path))
		}
	}
	for _, dir := range o.Private {
		add(danger{reason: "the state of this program"}, dir)
	}
	for _, d := range hostDangers {
		if filepath.IsAbs(o.Home) && within(filepath.Clean(o.Home), d.path) {
			d.only = true // the home is in there, as is root's: what lies in the home is for homeDangers to judge
		}
		add(d, d.path)
	}
	return all
}

func checkDanger(source string, dangers []danger) error {
	for _, d := range dangers {
		if d.threatens(source) {
			return &DangerError{Source: source, Danger: d.path, Reason: d.reason}
		}
	}
	return nil
}

func (d danger) threatens(source string) bool {
	info, err := os.Stat(d.path)
	if err != nil {
		return false // what is not there cannot be given away
	}
	// A bind mount is another path to the same directory.
	if other, err := os.Stat(source); err == nil && os.SameFile(info, other) {
		return true
	}
	if within(d.path, source) {
		return true
	}
	if d.only || !within(source, d.path) {
		return false
	}
	for _, dir := range d.except {
		if strings.HasPrefix(source, dir+"/") {
			return false
		}
	}
	return true
}
