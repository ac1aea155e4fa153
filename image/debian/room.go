package debian

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/environ"
)

// room is where mmdebstrap, the packages' scripts and npm run. They are strangers
// with root's powers, so the room has namespaces of its own for users, mounts,
// processes, System V IPC and names. Its root is nobody on this machine; its file
// system holds programs and libraries, the public half of their configuration,
// and one directory to write to; no process outside of it can be seen. Only the
// network is the machine's.
type room struct {
	dir    string   // holds what the room writes; ours
	way    entrance // into the namespaces
	script string   // furnishes it from inside
	shown  []string // files and directories of this machine, besides those that every room has

	environ []string // besides that of every build
}

// entrance is how a command becomes root of a user namespace.
type entrance struct {
	prefix []string // of its argv
	attr   syscall.SysProcAttr
}

//go:embed room.sh
var roomScript string

// The ids of the room that root makes: on the machine they belong to nobody.
// systemd's list of users and groups leaves them free, above those that it and
// others give to containers (systemd.io/UIDS-GIDS).
const (
	roomFirstID = 0x70000000
	roomIDs     = 1 << 16 // nobody, 65534, is one of them
)

// asRoot is the entrance for root, who may map any ids.
func asRoot() entrance {
	ids := []syscall.SysProcIDMap{{HostID: roomFirstID, Size: roomIDs}}
	return entrance{
		// Becoming root inside comes last, after the change to a directory that
		// only root outside may enter.
		prefix: []string{"setpriv", "--reuid=0", "--regid=0", "--clear-groups"},
		attr: syscall.SysProcAttr{
			Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
				syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS,
			UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
			AmbientCaps: []uintptr{unix.CAP_SETUID, unix.CAP_SETGID},
		},
	}
}

// asUser is the entrance for others. It is mmdebstrap that takes the ids which
// /etc/subuid gives the user, because where AppArmor reserves namespaces for
// known programs (Ubuntu), it is one of those and this program is not.
func asUser(mmdebstrap string) entrance {
	return entrance{prefix: []string{mmdebstrap, "--unshare-helper"}}
}

// newRoom makes a room below parent, after it removed those that an interrupted
// build left there. The caller holds the cache's lock, and closes the room.
func newRoom(parent, mmdebstrap string, shown []string) (*room, error) {
	way := asUser(mmdebstrap)
	if os.Geteuid() == 0 {
		if err := checkIDs("/proc/self/uid_map"); err != nil {
			return nil, err
		}
		way = asRoot()
	}
	if err := sweepRooms(parent, way); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, roomPrefix)
	if err != nil {
		return nil, err
	}
	r := &room{dir: dir, way: way, script: roomScript, shown: shown}
	return r, errors.Join(
		// Parent is closed to others; the room's root is one of them.
		os.Chmod(dir, 0o755),
		os.Mkdir(filepath.Join(dir, "root"), 0o755),
		os.Mkdir(r.given(), 0o755),
		os.Mkdir(r.temp(), 0o755),
		os.Chmod(r.temp(), 0o777),
	)
}

// given holds what a build is given in the room's /tmp, readable by all.
func (r *room) given() string { return filepath.Join(r.dir, "given") }

// temp holds what the room writes to its /tmp.
func (r *room) temp() string { return filepath.Join(r.dir, "tmp") }

// checkIDs tells whether root, who may itself live in a user namespace, has the
// ids that the room takes.
func checkIDs(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		var first, outside, count int64
		if _, err := fmt.Sscan(line, &first, &outside, &count); err == nil && first <= roomFirstID && first+count >= roomFirstID+roomIDs {
			return nil
		}
	}
	return fmt.Errorf("building a Debian image as root needs the user ids from %d to %d, which keep the packages' scripts from being root here, and this container does not have them: build the image outside of it, or as an ordinary user",
		int64(roomFirstID), int64(roomFirstID+roomIDs-1))
}

// command prepares a program that runs in the room; r.start starts it. When ctx
// ends, and also when we do, everything in the room is killed.
func (r *room) command(ctx context.Context, argv ...string) *exec.Cmd {
	shown := append(visible(), r.shown...)
	return r.enter(ctx, r.dir, slices.Concat([]string{"sh", "-euc", r.script, "sh"}, shown, []string{"--"}, argv)...)
}

// enter prepares a program that is root of the room's namespaces and still sees
// this machine's files.
func (r *room) enter(ctx context.Context, dir string, argv ...string) *exec.Cmd {
	argv = append(slices.Clip(r.way.prefix), argv...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Env = append(buildEnvironment(os.Environ()), r.environ...)
	attr := r.way.attr
	// A session of its own has no terminal, whose input a script could write.
	attr.Setsid = true
	cmd.SysProcAttr = &attr
	// With its first process, all of a process namespace ends.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// start starts a command of the room.
func (r *room) start(cmd *exec.Cmd) error {
	// Its end tells the room that we are gone.
	if _, err := cmd.StdinPipe(); err != nil {
		return err
	}
	started := make(chan error)
	go func() {
		// A thread hands its session keyring on to its children. This one gets
		// an empty one, and ends with the goroutine because it stays locked.
		runtime.LockOSThread()
		_, err := unix.KeyctlInt(unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
		if err != nil && !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EPERM) { // without keyrings, or kept from them
			started <- fmt.Errorf("leaving the session keyring: %w", err)
			return
		}
		started <- cmd.Start()
	}()
	err := <-started
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		return fmt.Errorf("the packages' scripts are kept from this machine by a user namespace, and the kernel refuses to make one (%w): allow them (sysctl user.max_user_namespaces), or build the image outside of this container", err)
	}
	return err
}

// close removes the room. What was written in it belongs to the room's users, so
// the room's root removes it.
func (r *room) close() error {
	cmd := r.enter(context.Background(), r.temp(), "find", ".", "-mindepth", "1", "-delete")
	var said strings.Builder
	cmd.Stderr = &said
	err := r.start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		return fmt.Errorf("emptying %s: %w\n%s", r.temp(), err, said.String())
	}
	return os.RemoveAll(r.dir)
}

// sweepRooms removes the rooms below parent.
func sweepRooms(parent string, way entrance) error {
	left, err := filepath.Glob(filepath.Join(parent, roomPrefix+"*"))
	for _, dir := range left {
		r := &room{dir: dir, way: way}
		if _, statErr := os.Stat(r.temp()); statErr == nil {
			err = errors.Join(err, r.close())
		} else {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

// visible is what every room shows of this machine: programs, libraries, and
// the configuration by which they find each other, servers and certificates.
func visible() []string {
	return []string{
		"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32",
		"/nix/store", "/run/current-system", // all of that on NixOS
		"/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d",
		"/etc/nsswitch.conf", "/etc/host.conf", "/etc/gai.conf", "/etc/hosts", "/etc/resolv.conf",
		"/etc/ssl", "/etc/ca-certificates", "/etc/pki", "/etc/crypto-policies",
		"/etc/apt/trusted.gpg", "/etc/apt/trusted.gpg.d", "/etc/apt/keyrings",
		"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty",
	}
}

// roomPath is where the room's programs are looked for.
const roomPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"

// buildEnvironment is the whole environment of everything that a build starts.
// Ours has keys and tokens; the proxies are what the network takes.
func buildEnvironment(ours []string) []string {
	return append(environ.Pick(ours, environ.Proxies()...),
		"PATH="+roomPath, "HOME=/root", "TMPDIR=/tmp", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=dumb",
		"DEBIAN_FRONTEND=noninteractive",
		"INITRD=No", // for the scripts of kernels: we make the initial RAM disk ourselves
	)
}
