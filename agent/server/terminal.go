//go:build linux

package server

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// pollable returns a second descriptor of f whose reads the runtime can
// interrupt.
func pollable(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot duplicate the terminal's descriptor: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot make the terminal non-blocking: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// control runs an ioctl without making the file block, as Fd would.
func control(f *os.File, call func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var callErr error
	if err := raw.Control(func(fd uintptr) { callErr = call(int(fd)) }); err != nil {
		return err
	}
	return callErr
}

func setSize(f *os.File, size windowSize) error {
	return control(f, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{
			Row: uint16(size.height), Col: uint16(size.width),
		})
	})
}

// prepareTerminal makes the terminal the user's own, and one for UTF-8, so
// that erasing in canonical mode takes whole characters.
func prepareTerminal(slave *os.File, user User) error {
	if os.Geteuid() == 0 {
		if err := slave.Chown(user.UID, user.GID); err != nil {
			return err
		}
		if err := slave.Chmod(0o620); err != nil {
			return err
		}
	}
	return control(slave, func(fd int) error {
		modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		modes.Iflag |= unix.IUTF8
		return unix.IoctlSetTermios(fd, unix.TCSETS, modes)
	})
}

// endOfInput returns what must be written to a terminal to make its reader see
// the end of input: in canonical mode the end-of-file character, once to
// deliver an unfinished line and once more at a line's start. A program that
// reads raw bytes has no such thing.
func endOfInput(master *os.File, lineUnfinished bool) []byte {
	var eof []byte
	// Without the modes nothing can be said to the reader.
	_ = control(master, func(fd int) error {
		modes, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil || modes.Lflag&unix.ICANON == 0 {
			return err
		}
		eof = append(eof, modes.Cc[unix.VEOF])
		if lineUnfinished {
			eof = append(eof, modes.Cc[unix.VEOF])
		}
		return nil
	})
	return eof
}
