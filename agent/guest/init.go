//go:build linux

package guest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// The service's last words to process 1, each on a line of its own.
const (
	wordListen = "listen" // followed by the path of a socket in the new root; a switch comes later
	wordSwitch = "switch" // followed by the path of the image's init
	wordFail   = "fail"   // followed by the reason
)

// servicePath is where the service finds the image's systemctl.
const servicePath = "/usr/bin:/bin:/run/current-system/sw/bin"

// selfPath leads to this program even where its file is out of reach, as it is
// once the root is another.
const selfPath = "/proc/self/exe"

// Init is process 1 of a guest until the image's own init takes its place. It
// returns never: what fails here ends the machine, with the reason on the
// console, because a guest that hangs would tell its host nothing.
func Init() {
	err := firstStage()
	openLog().Error(fmt.Sprintf("the guest cannot start: %v", err))
	powerOff()
}

// firstStage runs it. It returns only if that fails.
func firstStage() error {
	if err := mountKernel(); err != nil {
		return err
	}
	if err := consoleStreams(); err != nil {
		return err
	}
	// Otherwise the kernel drops messages of ours that come close together.
	// Without the setting only a few lines are lost.
	_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0o644)
	words, err := startService()
	if err != nil {
		return err
	}
	var sockets []string
	for lines := bufio.NewScanner(words); lines.Scan(); {
		word, what, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case wordListen:
			sockets = append(sockets, what)
		case wordSwitch:
			return switchRoot(what, sockets)
		case wordFail:
			return errors.New(what)
		default:
			return fmt.Errorf("the agent's service said %q", lines.Text())
		}
	}
	return errors.New("the agent's service ended before the root was ready (its last lines are above)")
}

// mountKernel mounts the kernel's file systems, of which the kernel may have
// mounted one itself.
func mountKernel() error {
	memory, err := totalMemory()
	if err != nil {
		return err
	}
	for _, m := range memory.kernelMounts() {
		if err := m.do(); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

// consoleStreams connects the standard streams, which the service inherits,
// with the console. An initrd need not have had a device file for it.
func consoleStreams() error {
	console, err := os.OpenFile("/dev/console", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		// A guest without a console is unusual, but not wrong.
		console, err = os.OpenFile(os.DevNull, os.O_RDWR, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot open the console: %w", err)
	}
	defer console.Close()
	for fd := range 3 {
		if err := unix.Dup3(int(console.Fd()), fd, 0); err != nil && int(console.Fd()) != fd {
			return fmt.Errorf("cannot connect the standard streams with the console: %w", err)
		}
	}
	return nil
}

// startService starts this program once more, as the service, and returns the
// pipe on which that will say how it went.
//
// The service's name does not begin with "@", by which a process asks systemd
// not to be killed in the last stage of a shutdown. Nothing of use could still
// be done for the host then, and a process that stays delays the unmounting of
// home and shares: it ends at systemd's SIGTERM.
func startService() (io.Reader, error) {
	words, theirs, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("cannot make a pipe for the agent's service: %w", err)
	}
	defer theirs.Close()
	service := &exec.Cmd{
		Path: selfPath, Args: []string{"sandbox-agent", "service"}, Dir: "/",
		Env:    []string{"PATH=" + servicePath},
		Stderr: os.Stderr, ExtraFiles: []*os.File{theirs},
	}
	if err := service.Start(); err != nil {
		return nil, fmt.Errorf("cannot start the agent's service: %w", err)
	}
	return words, nil
}

// switchRoot makes the new root the root of everything and becomes init. The
// service has its root there already; moving the mount does not disturb it. init
// inherits the sockets.
func switchRoot(init string, sockets []string) error {
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("cannot enter the new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("cannot move the new root to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("cannot change to the new root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("cannot enter the new root: %w", err)
	}
	for _, path := range sockets {
		if err := listenFor(path); err != nil {
			openLog().Warn("commands wait for systemd", "err", err)
		}
	}
	// The kernel itself gives an init these two and nothing else.
	err := unix.Exec(init, []string{init}, []string{"HOME=/", "TERM=linux"})
	return fmt.Errorf("cannot execute the image's init %s: %w", init, err)
}

// powerOff ends the machine. Should the machine not be able to switch itself
// off, the end of process 1 makes the kernel panic, which does it, too.
func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	os.Exit(1)
}
