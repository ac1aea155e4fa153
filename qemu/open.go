package qemu

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
)

// OpenFile is a file that QEMU inherits in place of a path, which it could not follow.
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

// inheritance is what QEMU is to inherit.
type inheritance struct {
	*Files
	listed []OpenFile // those that were opened here
}

// open opens the file at the path for QEMU, which may open it once more if reopen says so.
func (in *inheritance) open(path string, writable bool, reopen confine.Access) (fd int, err error) {
	flags := os.O_RDONLY
	if writable {
		flags = os.O_RDWR
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return 0, err
	}
	if reopen == confine.Read {
		if err := makeReadable(f); err != nil {
			return 0, errors.Join(err, f.Close())
		}
	}
	return in.hand(f, path, writable, reopen), nil
}

// hand takes over a file that was opened at the path.
func (in *inheritance) hand(f *os.File, path string, writable bool, reopen confine.Access) (fd int) {
	fd = in.Add(f)
	file := in.get(fd)
	if file.Reopen = reopen; !writable {
		file.Path = path
	}
	in.listed = append(in.listed, OpenFile{fd, path, writable})
	return fd
}

// inherit opens everything that c names by a path, because QEMU gets to see no directory, and returns the
// configuration that names the descriptors instead, with the firmware that the machine type needs. They follow the
// files that are passed already. Nothing of it becomes QEMU's own, so that it can be written to only by a descriptor
// that can.
func (c Config) inherit(files *Files, caps Capabilities) (_ Config, _ *inheritance, err error) {
	in := &inheritance{Files: files}
	defer func() {
		if err != nil {
			err = fmt.Errorf("opening QEMU's files: %w", err)
		}
	}()
	for _, fd := range c.fds() {
		if in.get(fd) == nil {
			return c, nil, fmt.Errorf("there is none for the descriptor %d", fd)
		}
	}
	if memory := in.get(c.MemoryFD); memory != nil {
		memory.Reopen = confine.ReadWrite
		if c.MemoryPrivate {
			memory.Reopen, memory.Path = confine.Read, memory.File.Name()
			if err := makeReadable(memory.File); err != nil {
				return c, nil, err
			}
		}
	}
	if c.Kernel, err = in.reopened(c.Kernel); err != nil {
		return c, nil, err
	}
	if c.Initrd != "" {
		if c.Initrd, err = in.reopened(c.Initrd); err != nil {
			return c, nil, err
		}
	}
	if c.ChooseMachine(caps) == MachineMicroVM && caps.QBoot != "" {
		if c.firmware, err = in.reopened(caps.QBoot); err != nil {
			return c, nil, err
		}
	}
	if c.Drives, err = in.drives(c.Drives); err != nil {
		return c, nil, err
	}
	c.Shares = slices.Clone(c.Shares)
	for i := range c.Shares {
		f, err := connect(c.Shares[i].Socket)
		if err != nil {
			return c, nil, err
		}
		c.Shares[i].FD = in.Add(f)
	}
	if c.VsockCID != 0 {
		if c.VsockFD, err = in.open(vsockDevice, true, confine.None); err != nil {
			return c, nil, err
		}
	}
	return c, in, nil
}

// reopened is for files that QEMU opens by a path and in no other way.
func (in *inheritance) reopened(path string) (string, error) {
	fd, err := in.open(path, false, confine.Read)
	return fmt.Sprintf("/proc/self/fd/%d", fd), err
}

// drives opens the files of drives, which QEMU takes as they are.
func (in *inheritance) drives(drives []Drive) ([]Drive, error) {
	drives = slices.Clone(drives)
	for i := range drives {
		d := &drives[i]
		var err error
		if d.Format == "qcow2" {
			err = in.layers(d)
		} else {
			d.FD, err = in.open(d.Path, !d.ReadOnly, confine.None)
		}
		if err != nil {
			return nil, err
		}
	}
	return drives, nil
}

// layers opens the layers of a disk, whose headers it judges: see LayerError.
func (in *inheritance) layers(d *Drive) error {
	var fds []int
	below := ""
	for n, path := range append(slices.Clone(d.Backing), d.Path) {
		writable := d.writable(n)
		f, _, err := openLayer(path, below, writable)
		if err != nil {
			return err
		}
		fds = append(fds, in.hand(f, path, writable, confine.None))
		below = filepath.Base(path)
	}
	d.BackingFDs, d.FD = fds[:len(fds)-1], fds[len(fds)-1]
	return nil
}

// makeReadable lets everybody read the file, of whom the directories around it keep out all but QEMU, to whom it
// is handed.
func makeReadable(f *os.File) error {
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
