package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
)

// Names of everything that a sandbox keeps in its state directory.
const (
	configFile   = "config.json" // Config: what was asked for; written by Create, Rename and Resize
	stateFile    = "state.json"  // State: what became of it; written by the supervisor
	lockFile     = "lock"        // flock: held by the supervisor, or by a command that changes the sandbox
	homeDir      = "home"        // the guest user's persistent home
	diskDir      = "disk"        // the layers of the guest's writable disk, if it has one
	spareFile    = "spare"       // space that is given up when the disk has filled the host's, for stateFile
	keysDir      = "keys"        // the two SSH keys below
	clientKey    = "agent_key"   // private key with which the supervisor opens the guest's agent
	hostKey      = "host_key"    // private key by which the guest is known to ssh clients
	logsDir      = "logs"        // the logs below
	snapshotsDir = "snapshots"   // one directory for each snapshot, named by its tag

	restoredDisk = "disk.restored" // what is about to take the place of diskDir
	homeBefore   = "home.before"   // what homeDir was before a restore that is not over
)

// Names of the logs in logsDir. Each start moves the previous one to NAME.1.
const (
	ConsoleLog    = "console.log"
	SupervisorLog = "supervisor.log"
	QEMULog       = "qemu.log"
	VirtiofsdLog  = "virtiofsd.log"
)

// Names of what a running sandbox keeps in its runtime directory.
const (
	apiSocket = "api.sock"  // the supervisor's HTTP API
	fsSocket  = "fs%d.sock" // one vhost-user socket for the home (0) and each share
)

// portsLock, in the runtime root, is held while a supervisor chooses host
// ports and QEMU binds them, so that two sandboxes never choose the same one.
const portsLock = "ports.lock"

// maxSocketPath is sizeof(sockaddr_un.sun_path) less its final NUL (unix(7)).
const maxSocketPath = 107

// Dirs are the roots under which sandboxes live.
type Dirs struct {
	Data    string // images
	State   string // one directory per sandbox
	Runtime string // sockets, one directory per sandbox
	Cache   string // what can be made again
}

// DefaultDirs follows the XDG base directory specification; root without XDG
// variables uses the system's directories.
func DefaultDirs(getenv func(string) string, uid int) (Dirs, error) {
	home := getenv("HOME")
	pick := func(variable, system string, user ...string) (string, error) {
		if dir := getenv(variable); dir != "" {
			if !filepath.IsAbs(dir) {
				return "", fmt.Errorf("%s is %q, but must be an absolute path", variable, dir)
			}
			return filepath.Join(dir, "sandbox"), nil
		}
		if uid == 0 {
			return system, nil
		}
		if home == "" {
			return "", fmt.Errorf("neither %s nor HOME is set: set one of them", variable)
		}
		return filepath.Join(append([]string{home}, user...)...), nil
	}
	var d Dirs
	var errs [4]error
	d.Data, errs[0] = pick("XDG_DATA_HOME", "/var/lib/sandbox", ".local", "share", "sandbox")
	d.State, errs[1] = pick("XDG_STATE_HOME", "/var/lib/sandbox/sandboxes", ".local", "state", "sandbox")
	d.Cache, errs[2] = pick("XDG_CACHE_HOME", "/var/cache/sandbox", ".cache", "sandbox")
	d.Runtime, errs[3] = runtimeRoot(getenv, uid)
	return d, errors.Join(errs[:]...)
}

// runtimeRoot falls back to a directory in the temporary directory, as
// machines without a login session (containers, CI, su) set no
// XDG_RUNTIME_DIR. Its name holds the uid, and Prepare refuses it when it
// belongs to somebody else.
func runtimeRoot(getenv func(string) string, uid int) (string, error) {
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("XDG_RUNTIME_DIR is %q, but must be an absolute path", dir)
		}
		return filepath.Join(dir, "sandbox"), nil
	}
	if uid == 0 {
		return "/run/sandbox", nil
	}
	if dir := fmt.Sprintf("/run/user/%d", uid); ownedBy(dir, uid) {
		return filepath.Join(dir, "sandbox"), nil
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("sandbox-%d", uid)), nil
}

// Images is the directory of the image store.
func (d Dirs) Images() string { return filepath.Join(d.Data, "images") }

// Prepare makes the directories, each open to its owner only, and refuses one
// that somebody else owns.
func (d Dirs) Prepare() error {
	for _, dir := range []string{d.Data, d.State, d.Runtime, d.Cache} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("making the directory %s: %w", dir, err)
		}
		if !ownedBy(dir, os.Getuid()) {
			return fmt.Errorf("the directory %s belongs to another user: remove it, or set the XDG_*_HOME and XDG_RUNTIME_DIR variables to directories of yours", dir)
		}
	}
	return os.Chmod(d.Runtime, 0o700)
}

var nameRule = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName tells whether name can name a sandbox. The rule is that of a host
// name's label (RFC 1123), because the name becomes the guest's host name.
func CheckName(name string) error {
	if !nameRule.MatchString(name) {
		return fmt.Errorf("the name %q is not valid: use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit first and last, such as my-project", name)
	}
	return nil
}
