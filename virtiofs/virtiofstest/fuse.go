package virtiofstest

import (
	"time"

	"golang.org/x/sys/unix"
)

// Op is the number of a request (linux/fuse.h).
type Op uint32

// The requests.
const (
	opLookup    Op = 1
	opForget    Op = 2
	opGetattr   Op = 3
	opSetattr   Op = 4
	opSymlink   Op = 6
	opMknod     Op = 8
	opMkdir     Op = 9
	opUnlink    Op = 10
	opRmdir     Op = 11
	opLink      Op = 13
	opOpen      Op = 14
	opRead      Op = 15
	opWrite     Op = 16
	opRelease   Op = 18
	opSetxattr  Op = 21
	opInit      Op = 26
	opOpendir   Op = 27
	opCreate    Op = 35
	opFallocate Op = 43
	opRename    Op = 45 // RENAME2
	opCopy      Op = 47 // COPY_FILE_RANGE
	opTmpfile   Op = 51
)

// Root is the share's own directory.
const Root = 1

func name(names ...string) []byte {
	var b []byte
	for _, n := range names {
		b = append(append(b, n...), 0)
	}
	return b
}

// node is the first number of a reply.
func node(reply []byte, err error) (uint64, error) {
	if err != nil {
		return 0, err
	}
	return little.Uint64(reply), nil
}

func only(_ []byte, err error) error { return err }

// Lookup returns the node that has the name in the directory.
func (g *Guest) Lookup(dir uint64, n string) (uint64, error) {
	return node(g.Do(opLookup, dir, name(n)))
}

// Remembers returns for how long the guest's kernel may go on with what it knows of a name: that it is there, and the
// attributes of what has it.
func (g *Guest) Remembers(dir uint64, n string) (entry, attributes time.Duration, err error) {
	reply, err := g.Do(opLookup, dir, name(n))
	if err != nil {
		return 0, 0, err
	}
	after := func(seconds, nanoseconds int) time.Duration {
		return time.Duration(little.Uint64(reply[seconds:]))*time.Second + time.Duration(little.Uint32(reply[nanoseconds:]))
	}
	return after(16, 32), after(24, 36), nil
}

// Forget lets go of a node, however often it was looked up. There is no reply to it.
func (g *Guest) Forget(node uint64) error {
	clear(g.memory[replyAt : replyAt+16])
	return only(g.Do(opForget, node, pack(uint64(1<<40))))
}

// Walk looks up one name after the other, from the root on.
func (g *Guest) Walk(names ...string) (at uint64, err error) {
	at = Root
	for _, n := range names {
		if at, err = g.Lookup(at, n); err != nil {
			return 0, err
		}
	}
	return at, nil
}

// Create makes a file and opens it.
func (g *Guest) Create(dir uint64, n string, flags int) (file, handle uint64, err error) {
	reply, err := g.Do(opCreate, dir, append(pack(uint32(flags|unix.O_CREAT), uint32(unix.S_IFREG|0o644), uint32(0), uint32(0)), name(n)...))
	if err != nil {
		return 0, 0, err
	}
	return little.Uint64(reply), little.Uint64(reply[128:]), nil
}

// Tmpfile makes a file without a name.
func (g *Guest) Tmpfile(dir uint64) error {
	return only(g.Do(opTmpfile, dir, append(pack(uint32(unix.O_TMPFILE|unix.O_RDWR), uint32(unix.S_IFREG|0o644), uint32(0), uint32(0)), name("")...)))
}

// Mkdir makes a directory.
func (g *Guest) Mkdir(dir uint64, n string) (uint64, error) {
	return node(g.Do(opMkdir, dir, append(pack(uint32(0o755), uint32(0)), name(n)...)))
}

// Mknod makes a node of the mode's type.
func (g *Guest) Mknod(dir uint64, n string, mode, device uint32) (uint64, error) {
	return node(g.Do(opMknod, dir, append(pack(mode, device, uint32(0), uint32(0)), name(n)...)))
}

// Symlink makes a symbolic link.
func (g *Guest) Symlink(dir uint64, n, target string) (uint64, error) {
	return node(g.Do(opSymlink, dir, name(n, target)))
}

// Link gives a file another name.
func (g *Guest) Link(file, dir uint64, n string) error {
	return only(g.Do(opLink, dir, append(pack(file), name(n)...)))
}

// Rename takes flags of renameat2(2).
func (g *Guest) Rename(from uint64, n string, to uint64, m string, flags uint32) error {
	return only(g.Do(opRename, from, append(pack(to, flags, uint32(0)), name(n, m)...)))
}

// Unlink removes a file's name.
func (g *Guest) Unlink(dir uint64, n string) error { return only(g.Do(opUnlink, dir, name(n))) }

// Rmdir removes a directory.
func (g *Guest) Rmdir(dir uint64, n string) error { return only(g.Do(opRmdir, dir, name(n))) }

// Open opens a file.
func (g *Guest) Open(file uint64, flags int) (handle uint64, err error) {
	return node(g.Do(opOpen, file, pack(uint32(flags), uint32(0))))
}

// Opendir opens a directory.
func (g *Guest) Opendir(dir uint64) (handle uint64, err error) {
	return node(g.Do(opOpendir, dir, pack(uint32(0), uint32(0))))
}

// Read returns what the file holds there, at most size bytes.
func (g *Guest) Read(file, handle, offset uint64, size uint32) ([]byte, error) {
	return g.Do(opRead, file, pack(handle, offset, size, [5]uint32{}))
}

// Write writes to an open file.
func (g *Guest) Write(file, handle, offset uint64, data []byte) error {
	return only(g.Do(opWrite, file, append(pack(handle, offset, uint32(len(data)), [5]uint32{}), data...)))
}

// Release closes a file.
func (g *Guest) Release(file, handle uint64) error {
	return only(g.Do(opRelease, file, pack(handle, [4]uint32{})))
}

// Fallocate changes what an open file has of the disk.
func (g *Guest) Fallocate(file, handle, offset, length uint64, mode uint32) error {
	return only(g.Do(opFallocate, file, pack(handle, offset, length, mode, uint32(0))))
}

// Copy copies the beginning of an open file to the offset of another.
func (g *Guest) Copy(from, fromHandle, to, toHandle, offset, length uint64) error {
	return only(g.Do(opCopy, from, pack(fromHandle, uint64(0), to, toHandle, offset, length, uint64(0))))
}

// Setxattr sets an extended attribute.
func (g *Guest) Setxattr(file uint64, n string, value []byte) error {
	return only(g.Do(opSetxattr, file, append(append(pack(uint32(len(value)), uint32(0)), name(n)...), value...)))
}

// Getattr asks for a node's attributes.
func (g *Guest) Getattr(file uint64) error { return only(g.Do(opGetattr, file, pack([2]uint64{}))) }

// Owner is what the guest sees of a node's user, group and mode.
func (g *Guest) Owner(file uint64) (uid, gid, mode uint32, err error) {
	reply, err := g.Do(opGetattr, file, pack([2]uint64{}))
	if err != nil {
		return 0, 0, 0, err
	}
	const attributes = 16 // after how long they are valid
	return little.Uint32(reply[attributes+68:]), little.Uint32(reply[attributes+72:]), little.Uint32(reply[attributes+60:]), nil
}

// Attr is what Setattr changes: what is set of it.
type Attr struct {
	Mode, UID, GID *uint32
	Size, MTime    *uint64
	Handle         *uint64 // of an open file by which it is done
}

// Setattr changes a node's attributes.
func (g *Guest) Setattr(file uint64, a Attr) error {
	var valid, mode, uid, gid uint32
	var size, mtime, handle uint64
	set32 := func(bit uint32, from, to *uint32) {
		if from != nil {
			valid, *to = valid|bit, *from
		}
	}
	set64 := func(bit uint32, from, to *uint64) {
		if from != nil {
			valid, *to = valid|bit, *from
		}
	}
	set32(1<<0, a.Mode, &mode)
	set32(1<<1, a.UID, &uid)
	set32(1<<2, a.GID, &gid)
	set64(1<<3, a.Size, &size)
	set64(1<<5, a.MTime, &mtime)
	set64(1<<6, a.Handle, &handle)
	return only(g.Do(opSetattr, file, pack(valid, uint32(0), handle, size, uint64(0), uint64(0), mtime, uint64(0),
		[3]uint32{}, mode, uint32(0), uid, gid, uint32(0))))
}
