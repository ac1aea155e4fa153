package layout

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/trust"
)

// Names of everything that a sandbox keeps in its state directory.
const (
	ConfigFile    = "config.json"     // Config: what was asked for; written by Create, Rename and Resize
	StateFile     = "state.json"      // State: what became of it; written by the supervisor
	LockFile      = "lock"            // flock: held by the supervisor, or by a command that changes the sandbox
	HomeDir       = "home"            // the guest user's persistent home
	DiskDir       = "disk"            // the layers of the guest's writable disk, if it has one
	SpareFile     = "spare"           // space that is given up when the disk has filled the host's, for StateFile
	KeysDir       = "keys"            // the keys below
	ClientKey     = "agent_key"       // private key with which the supervisor opens the guest's agent
	HostKey       = "host_key"        // private key by which the guest is known to ssh clients
	AuthorityKey  = "authority"       // certificate and private key of the authority that the guest believes; only if it has one
	LogsDir       = "logs"            // the logs below
	WorkspaceFile = "workspaces.json" // what was applied and discarded of copy-on-write shares; there with the first
	MergeBases    = "bases"           // what copy-on-write shares had in them at first, where git knew
	WorkspaceLock = "workspaces.lock" // flock: held by a command that applies or discards
	SnapshotsDir  = "snapshots"       // one directory for each snapshot, named by its tag

	restored   = ".restored"   // ends the name of what is about to take the place of a disk's directory
	HomeBefore = "home.before" // what HomeDir was before a restore that is not over
)

// CacheDir has the layers of the disk of the guest's nth cache, from 0 on.
func CacheDir(n int) string { return fmt.Sprintf("cache%d", n) }

// Names of the logs in LogsDir. Each start moves the previous one to NAME.1.
const (
	ConsoleLog    = "console.log"
	SupervisorLog = "supervisor.log"
	QEMULog       = "qemu.log"
	VirtiofsdLog  = "virtiofsd.log"
	NetworkLog    = "network.log"
	AuditLog      = "audit.log"
	TryLog        = "try.log" // what the commands of sandbox try have written
)

// Names of what a running sandbox keeps in its runtime directory, and of where that
// may be.
const (
	runDir    = ".run"     // in the state directory: the runtime directories, where there is no session; no sandbox has such a name
	apiSocket = "api.sock" // the supervisor's HTTP API; the others are named after what is served on them: see Share
)

// PortsLock, in the runtime root, is held while a supervisor chooses host
// ports and QEMU binds them, so that two sandboxes never choose the same one.
const PortsLock = "ports.lock"

// MaxSocketPath is sizeof(sockaddr_un.sun_path) less its final NUL (unix(7)).
const MaxSocketPath = 107

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
	d.Runtime, errs[3] = runtimeRoot(getenv, uid, d.State)
	return d, errors.Join(errs[:]...)
}

// runtimeRoot is the session's directory, or one beside the sandboxes where there
// is no session (containers, CI, su): never one in /tmp, where anybody may have put
// something of that name before.
func runtimeRoot(getenv func(string) string, uid int, state string) (string, error) {
	if dir := getenv("XDG_RUNTIME_DIR"); dir != "" {
		if !filepath.IsAbs(dir) {
			return "", fmt.Errorf("XDG_RUNTIME_DIR is %q, but must be an absolute path", dir)
		}
		return filepath.Join(dir, "sandbox"), nil
	}
	if uid == 0 {
		return "/run/sandbox", nil
	}
	if dir := fmt.Sprintf("/run/user/%d", uid); isOwnDirectory(dir, uid) {
		return filepath.Join(dir, "sandbox"), nil
	}
	return filepath.Join(state, runDir), nil
}

func isOwnDirectory(path string, uid int) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == uid
}

// Consents is the directory of what the user has consented to in the files of projects.
// No sandbox has such a name.
func (d Dirs) Consents() string { return filepath.Join(d.State, ".consents") }

// Secrets is the directory of what the user has stored for guests to use. No sandbox has
// such a name.
func (d Dirs) Secrets() string { return filepath.Join(d.State, ".secrets") }

// Logins is the directory of the user's logins at providers of AI models. No sandbox has such
// a name.
func (d Dirs) Logins() string { return filepath.Join(d.State, ".logins") }

// Caches is the directory of what guests have cached for their projects. No sandbox has such
// a name.
func (d Dirs) Caches() string { return filepath.Join(d.State, ".caches") }

// Sessions is the directory of what AI agents keep for projects when their sandboxes are gone. No sandbox has such a name.
func (d Dirs) Sessions() string { return filepath.Join(d.State, ".sessions") }

// Answers is the directory of what the user has opened for projects whose guests have asked.
func (d Dirs) Answers() string { return filepath.Join(d.State, ".answers") }

// Images is the directory of the image store.
func (d Dirs) Images() string { return filepath.Join(d.Data, "images") }

// Prepare makes the directories, each open to its owner only, and refuses one
// that somebody else has, may write, or could exchange for another.
func (d Dirs) Prepare() error {
	for _, dir := range []string{d.Data, d.State, d.Cache, d.Runtime} {
		f, err := trust.MakeDir(dir)
		if foreign, ok := errors.AsType[*trust.Error](err); ok {
			return fmt.Errorf("the directory %s cannot be used: %w; mend that, or set the variables XDG_DATA_HOME, XDG_STATE_HOME, XDG_CACHE_HOME and XDG_RUNTIME_DIR to directories of yours (or unset those that another user's session has set)", dir, foreign)
		}
		if err != nil {
			return fmt.Errorf("making the directory %s: %w", dir, err)
		}
		if dir == d.Runtime {
			err = f.Chmod(0o700) // who can enter it has the sandboxes
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("making the directory %s: %w", dir, err)
		}
	}
	return nil
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

// CheckTag tells whether tag can name a snapshot.
func CheckTag(tag string) error {
	if !nameRule.MatchString(tag) {
		return fmt.Errorf("the tag %q is not valid: use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit first and last, such as before-upgrade", tag)
	}
	return nil
}
