//go:build linux

package guest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/agent/internal/wire"
	"golang.org/x/sys/unix"
)

// plugPatience is how long a device may take that the host has plugged in. The kernel of an emulated guest on a busy
// host takes seconds.
const plugPatience = time.Minute

// Mount implements [server.Controller].
func (s *service) Mount(ctx context.Context, m agent.Mount) error {
	if err := checkConfig(agent.BootConfig{Mounts: []agent.Mount{m}}); err != nil {
		return &wire.ControlError{Code: wire.CodeBadRequest, Message: err.Error()}
	}
	m.Target = shareTarget(s.image.User.Home, m.Target)
	ctx, cancel := context.WithTimeout(ctx, plugPatience)
	defer cancel()
	if err := s.mountPlugged(ctx, m); err != nil {
		return err
	}
	s.logger.Info("a share was mounted", "tag", m.Tag, "target", m.Target)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Mounts = append(slices.Clone(s.config.Mounts), m)
	return trustShares("/", s.image.User, s.config.Mounts)
}

// Unmount implements [server.Controller].
func (s *service) Unmount(_ context.Context, tag string, force bool) (agent.Users, error) {
	all, err := mountsNow()
	if err != nil {
		return agent.Users{}, err
	}
	// What was mounted last first; one may be on another.
	for _, m := range slices.Backward(s.mountsOf(all, tag)) {
		flags := unix.UMOUNT_NOFOLLOW
		if force {
			flags |= unix.MNT_DETACH
			writeBack(m.target)
		}
		switch err := unix.Unmount(m.target, flags); {
		case errors.Is(err, unix.EBUSY):
			return all.users(m), nil
		case err != nil:
			return agent.Users{}, fmt.Errorf("cannot unmount %s: %w", m.target, err)
		}
	}
	s.workspaces.forget(tag)
	s.logger.Info("a share was unmounted", "tag", tag, "forced", force)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config.Mounts = slices.DeleteFunc(slices.Clone(s.config.Mounts), func(m agent.Mount) bool { return m.Tag == tag })
	return agent.Users{}, trustShares("/", s.image.User, s.config.Mounts)
}

// mountsOf are the mounts of the share with that tag: of its overlay, if it is copy-on-write.
func (s *service) mountsOf(all mountTable, tag string) mountTable {
	if device, ok := s.workspaces.device(tag); ok {
		return all.on(device)
	}
	return all.of(tag)
}

// writeBack gives the host what is still in the guest's memory only. A share that cannot be opened has nothing there.
func writeBack(dir string) {
	if f, err := os.Open(dir); err == nil {
		_ = unix.Syncfs(int(f.Fd()))
		f.Close()
	}
}

// mountPlugged mounts a share as soon as its device is there.
func (s *service) mountPlugged(ctx context.Context, m agent.Mount) error {
	point, err := sharePoint("/", s.image.User, m)
	if err != nil {
		return fmt.Errorf("cannot make the mount point %s: %w", m.Target, err)
	}
	defer point.Close()
	// Drivers are bound with an event of the kernel's.
	mounted := errors.New("no event of the kernel's")
	err = watchKernel(ctx, func() bool {
		mounted = mountShareOn(point, m, &s.workspaces)
		return !errors.Is(mounted, unix.EINVAL)
	})
	switch {
	case err != nil && ctx.Err() != nil:
		return fmt.Errorf("its device did not appear within %v: does the guest's kernel take devices while it runs (pciehp, or acpiphp), and has it the driver virtiofs?", plugPatience)
	case err != nil:
		return err
	}
	return mounted
}

// watchKernel calls look until it returns true: at first, and then after each event of the kernel's devices.
func watchKernel(ctx context.Context, look func() bool) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("cannot listen to the kernel's events: %w", err)
	}
	events := os.NewFile(uintptr(fd), "kernel's events")
	defer events.Close()
	const fromKernel = 1 // the group; the other one is udev's
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: fromKernel}); err != nil {
		return fmt.Errorf("cannot listen to the kernel's events: %w", err)
	}
	defer context.AfterFunc(ctx, func() { events.Close() })()
	message := make([]byte, 16<<10)
	for !look() {
		// ENOBUFS: some were lost, after which it is time to look, too.
		if _, err := events.Read(message); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return errors.Join(ctx.Err(), err)
		}
	}
	return nil
}

// mounted is a line of mountinfo (proc_pid_mountinfo(5)).
type mounted struct {
	device string // major:minor
	target string
	kind   string
	source string
}

type mountTable []mounted

// mountsNow reads what is mounted, in the order in which it was.
func mountsNow() (mountTable, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all mountTable
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m, ok := parseMounted(lines.Text()); ok {
			all = append(all, m)
		}
	}
	return all, lines.Err()
}

func parseMounted(line string) (m mounted, ok bool) {
	before, after, ok := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if !ok || len(fields) < 6 || len(rest) < 2 {
		return m, false
	}
	return mounted{device: fields[2], target: unescapeMount(fields[4]), kind: rest[0], source: unescapeMount(rest[1])}, true
}

// unescapeMount resolves what the kernel writes as a backslash and three octal digits.
func unescapeMount(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// of are the mounts of the share with that tag.
func (t mountTable) of(tag string) (list mountTable) {
	for _, m := range t {
		if m.kind == "virtiofs" && m.source == tag {
			list = append(list, m)
		}
	}
	return list
}

// on are the mounts of what is on that device.
func (t mountTable) on(device string) (list mountTable) {
	for _, m := range t {
		if m.device == device {
			list = append(list, m)
		}
	}
	return list
}

// users are what keeps m from being unmounted.
func (t mountTable) users(m mounted) agent.Users {
	users := agent.Users{Busy: true}
	for _, other := range t {
		if other.target != m.target && within(other.target, m.target) {
			users.Mounts = append(users.Mounts, other.target)
		}
	}
	processes, _ := os.ReadDir("/proc") // without it, nobody is to be seen
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || pid == os.Getpid() { // the agent has mounts of its own of what it has open
			continue
		}
		if uses := usedBy("/proc/"+p.Name(), m.device); uses != "" {
			users.Processes = append(users.Processes, agent.User{PID: pid, Command: commandOf("/proc/" + p.Name()), Uses: uses})
		}
	}
	users.More = len(users.Processes) > agent.MaxUsers || len(users.Mounts) > agent.MaxUsers
	users.Processes = users.Processes[:min(len(users.Processes), agent.MaxUsers)]
	users.Mounts = users.Mounts[:min(len(users.Mounts), agent.MaxUsers)]
	return users
}

// usedBy says what of a process is on the device. Processes that end meanwhile use nothing.
func usedBy(process, device string) string {
	for _, link := range []struct{ name, what string }{
		{"cwd", "working directory"}, {"root", "root directory"}, {"exe", "program"},
	} {
		if onDevice(filepath.Join(process, link.name), device) {
			return link.what
		}
	}
	files, _ := os.ReadDir(filepath.Join(process, "fd"))
	for _, f := range files {
		if path := filepath.Join(process, "fd", f.Name()); onDevice(path, device) {
			if name, err := os.Readlink(path); err == nil {
				return "open file " + filepath.Base(name)
			}
			return "open file"
		}
	}
	if maps, err := os.Open(filepath.Join(process, "maps")); err == nil {
		defer maps.Close()
		for lines := bufio.NewScanner(maps); lines.Scan(); {
			// Its numbers are hexadecimal (proc_pid_maps(5)), and mountinfo's are not.
			fields := strings.Fields(lines.Text())
			var major, minor uint32
			if len(fields) < 6 {
				continue
			}
			if _, err := fmt.Sscanf(fields[3], "%x:%x", &major, &minor); err == nil && deviceName(major, minor) == device {
				return "mapped file " + filepath.Base(fields[5])
			}
		}
	}
	return ""
}

func onDevice(path, device string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && deviceName(unix.Major(st.Dev), unix.Minor(st.Dev)) == device
}

func deviceName(major, minor uint32) string { return fmt.Sprintf("%d:%d", major, minor) }

// maxCommand is how much of a command line is told, in bytes.
const maxCommand = 256

// commandOf is the command line of a process, or its name if it has none.
func commandOf(process string) string {
	if f, err := os.Open(filepath.Join(process, "cmdline")); err == nil {
		defer f.Close()
		line := make([]byte, maxCommand)
		if n, _ := f.Read(line); n > 0 {
			return strings.TrimSpace(strings.ReplaceAll(string(line[:n]), "\x00", " "))
		}
	}
	name, _ := os.ReadFile(filepath.Join(process, "comm"))
	return strings.TrimSpace(string(name))
}
