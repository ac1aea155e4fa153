// Package confine starts programs that gain nothing when somebody takes them over from within: QEMU, which a
// guest attacks, and the helpers that read what QEMU wrote.
//
// A confined program is started by a launcher: this program itself, executed anew (see Main). The launcher puts
// one wall after the other around itself and then executes the program:
//
//   - user, mount, process, IPC, host name and, unless it needs one, network namespaces of its own
//   - a root directory that holds nothing but what the program is made of, read-only
//   - no capabilities, no way to gain any, a key ring of its own, no core dumps
//   - Landlock: no other file, no signal and no abstract socket to the outside, no TCP without a network
//   - a filter of system calls
//
// What the program works on, it gets as open files. Walls that the kernel or the machine's administrator does
// not offer are left out and named in the Report; when too few are left, the start is refused.
package confine

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/sourcery-zone/sandbox/internal/process"
)

// Program is what is executed, and with what. It gets no variable of our own environment.
type Program struct {
	Path string   // absolute; empty: nothing is executed, see Examine
	Self string   // in place of Path: this very program is executed anew, under that name. A Room must show its OwnParts
	Args []string // without the program's own name
	Env  []string // all that its environment holds
	Dir  string   // its working directory, without a Room; empty: ours

	// As in exec.Cmd.
	Stdin  io.Reader
	Stdout io.Writer

	Files []File // its descriptors 3, 4, …; they stay the caller's to close
}

// name is what messages call the program.
func (p Program) name() string {
	if p.Self != "" {
		return p.Self
	}
	return filepath.Base(p.Path)
}

// File is an open file that a program inherits. There, its name is /proc/self/fd/N, by which the program can
// open it anew if Reopen allows that.
type File struct {
	*os.File
	Reopen Access

	// Link is the path of a symbolic link to the file that is in the Room only; empty: none.
	Link string

	// Path is where the file was opened, if that is known. With it, a file that is to be only read is inherited
	// through a read-only mount, so that not even its owner can write to it or change its mode.
	Path string
}

// Access is what a program may do with a file that it opens anew.
type Access int

// The kinds of access.
const (
	None Access = iota // for sockets, pipes and what is never opened anew
	Read
	ReadWrite
)

// Spec says how a program is confined.
type Spec struct {
	Room   *Room   // nil: the program stays in our surroundings
	Filter *Filter // of system calls; nil: none

	// Listener gets the descriptor on which the calls are decided of which the Filter says Notify (seccomp_unotify(2)),
	// and has to close it. It is called before Start returns; calls of the program wait. Where there can be none, the
	// program is not started: *NotifyError.
	Listener func(*os.File)

	// Attr is for a program without a Room, which the caller confines in some other way.
	Attr *syscall.SysProcAttr

	// Alone is the path of a file, for a program in a mount namespace that Attr makes. The directory of that path then
	// holds nothing else, and only the file can be changed in it. Empty: all is as outside. What is shown is what the
	// path leads to in that moment: compare it. Where that cannot be done, the error is an *AloneError.
	Alone string
}

// Room is the surroundings of a program that is shut in.
type Room struct {
	// Paths are the files and directories of this machine that the program sees, under their own names and
	// read-only: itself and what else it is made of, as Parts finds it.
	Paths []string

	// Executes are those of the Paths, or below them, that may be executed.
	Executes []string

	// Devices, such as /dev/kvm, can be opened for reading and writing. /dev/null, zero and urandom always can.
	Devices []string

	// Network leaves the program in this machine's network. Without, it has one of its own with no interface.
	Network bool

	// User is whom the program runs as if this process can choose that: see ChooseUser. Nil: as we do.
	User *User

	// AllowWeak starts the program also where nothing can keep it from the user's files.
	AllowWeak bool
}

// Start starts the program, confined. It is killed when this process ends, and asked to end (SIGTERM) when ctx
// does. A nil error says that the program was executed. The error is a *WeakError if this machine offers too
// little to confine the program.
func Start(ctx context.Context, p Program, s Spec, o process.Options) (*process.Process, Report, error) {
	return Ready(ctx, p, s, o).Start(p.Args, p.Files)
}

// Examine tells which walls a program would have around it, without one.
func Examine(ctx context.Context, s Spec) (Report, error) {
	p, report, err := Start(ctx, Program{}, s, process.Options{})
	if err == nil {
		<-p.Done()
	}
	return report, err
}
