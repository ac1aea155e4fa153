package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// firstUID begins a range that neither distributions nor systemd, container managers or subuid(5) give to
	// anybody (systemd's UIDS-GIDS: container ranges end below 0x70000000). Process ids, which are added to
	// it, are below 2^22.
	firstUID = 0x70000000

	// nobody is for a root whose user namespace does not reach firstUID, as in rootless containers.
	nobody = 65534
)

// User is whom a QEMU runs as that root starts: somebody who owns nothing and is in no group, but for those
// that open the devices.
type User struct {
	ID     uint32
	Groups []uint32
}

// UnprivilegedUser returns the user for the QEMU of the process pid, or nil where none is needed, because the
// caller is not root, or possible, because its user namespace knows no other user. As no two processes have
// one pid, no two QEMUs that run at the same time share a user and could signal or trace each other.
func UnprivilegedUser(pid int) (*User, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return nil, fmt.Errorf("reading which users there are: %w", err)
	}
	gids, err := os.ReadFile("/proc/self/gid_map")
	if err != nil {
		return nil, fmt.Errorf("reading which groups there are: %w", err)
	}
	id, ok := chooseUser(string(uids), string(gids), uint32(pid))
	if !ok {
		return nil, nil
	}
	u := &User{ID: id}
	for _, device := range []string{kvmDevice, vsockDevice} {
		if group, ok := deviceGroup(device); ok && !slices.Contains(u.Groups, group) {
			u.Groups = append(u.Groups, group)
		}
	}
	return u, nil
}

// chooseUser takes the content of uid_map and gid_map (user_namespaces(7)).
func chooseUser(uids, gids string, pid uint32) (id uint32, ok bool) {
	for _, id := range []uint32{firstUID + pid, nobody} {
		if mapped(uids, id) && mapped(gids, id) {
			return id, true
		}
	}
	return 0, false
}

func mapped(idMap string, id uint32) bool {
	lines := bufio.NewScanner(strings.NewReader(idMap))
	for lines.Scan() {
		var inside, outside, count uint64
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &count); err != nil {
			return false
		}
		if uint64(id) >= inside && uint64(id) < inside+count {
			return true
		}
	}
	return false
}

// deviceGroup returns the group that may use the device, unless that is root's or everybody may.
func deviceGroup(device string) (uint32, bool) {
	info, err := os.Stat(device)
	if err != nil {
		return 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return st.Gid, ok && st.Gid != 0 && info.Mode().Perm()&0o060 == 0o060
}

// rootOnly tells whether no unprivileged user can be made to open the device.
func rootOnly(device string) bool {
	info, err := os.Stat(device)
	if err != nil {
		return false
	}
	_, byGroup := deviceGroup(device)
	return !byGroup && info.Mode().Perm()&0o006 != 0o006
}

// credential may be called on nil: then the process keeps its user.
func (u *User) credential() *syscall.Credential {
	if u == nil {
		return nil
	}
	return &syscall.Credential{Uid: u.ID, Gid: u.ID, Groups: u.Groups}
}

// OpenFile is a file that QEMU inherits in place of a path that it could not follow.
type OpenFile struct {
	FD       int    `json:"fd"` // its number in QEMU
	Path     string `json:"path"`
	Writable bool   `json:"writable,omitempty"`
}

// Redirections are the files as a shell would open them, to be appended to a quoted command line.
func Redirections(files []OpenFile) string {
	var b strings.Builder
	for _, f := range files {
		operator := "<"
		if f.Writable {
			operator = "<>"
		}
		fmt.Fprintf(&b, " %d%s%s", f.FD, operator, ShellQuote([]string{f.Path}))
	}
	return b.String()
}

// OpenFor opens everything that c names by a path, so that the user u need not be able to enter the
// directories, and returns the configuration that names the descriptors instead. These follow the files that
// are passed to Start already, and belong to the caller, who closes them after Start. Drives' files that a guest
// has written become u's, also those that another QEMU has open already; the files of an image are made
// readable, as the directories around it keep others out, not its files' modes. After an error files is what
// was passed.
func (c Config) OpenFor(u *User, passed []*os.File) (_ Config, files []*os.File, opened []OpenFile, err error) {
	all := slices.Clone(passed)
	defer func() {
		files = all
		if err != nil {
			closeAll(all[len(passed):])
			files, err = passed, fmt.Errorf("opening QEMU's files: %w", err)
		}
	}()
	add := func(f *os.File) int {
		all = append(all, f)
		return FirstFD + len(all) - 1
	}
	open := func(path string, writable bool, give func(*User, *os.File) error) (string, error) {
		f, err := openFor(u, path, writable, give)
		if err != nil {
			return "", err
		}
		fd := add(f)
		opened = append(opened, OpenFile{fd, path, writable})
		return fmt.Sprintf("/proc/self/fd/%d", fd), nil
	}
	if c.Kernel, err = open(c.Kernel, false, makeReadable); err != nil {
		return c, nil, nil, err
	}
	if c.Initrd != "" {
		if c.Initrd, err = open(c.Initrd, false, makeReadable); err != nil {
			return c, nil, nil, err
		}
	}
	c.Drives = slices.Clone(c.Drives)
	for i := range c.Drives {
		d := &c.Drives[i]
		give := makeReadable
		if !d.ReadOnly {
			give = Give
		}
		if d.Path, err = open(d.Path, !d.ReadOnly, give); err != nil {
			return c, nil, nil, err
		}
		d.Backing = slices.Clone(d.Backing)
		for j := range d.Backing {
			if d.Backing[j], err = open(d.Backing[j], false, Give); err != nil {
				return c, nil, nil, err
			}
		}
	}
	c.Shares = slices.Clone(c.Shares)
	for i := range c.Shares {
		f, err := connect(c.Shares[i].Socket)
		if err != nil {
			return c, nil, nil, err
		}
		c.Shares[i].FD = add(f)
	}
	return c, all, opened, nil
}

func openFor(u *User, path string, writable bool, give func(*User, *os.File) error) (*os.File, error) {
	flags := os.O_RDONLY
	if writable {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	if err := give(u, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Give makes f the user's, unless u is nil: a file that QEMU opens once more by the descriptor that it inherits.
func Give(u *User, f *os.File) error {
	if u == nil {
		return nil
	}
	return f.Chown(int(u.ID), int(u.ID))
}

func makeReadable(_ *User, f *os.File) error {
	info, err := f.Stat()
	if err == nil && info.Mode().Perm()&0o004 == 0 {
		err = f.Chmod(info.Mode().Perm() | 0o444)
	}
	return err
}

// connect returns a blocking socket, as QEMU would make it itself.
func connect(path string) (*os.File, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	f, err := conn.File()
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(int(f.Fd()), false); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}
