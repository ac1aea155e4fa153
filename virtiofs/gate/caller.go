package gate

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// callers are the threads of the file server, of which memory and descriptors can be looked at.
//
// What a descriptor is, the kernel tells by the directory /proc/TID/fd, in one call where a copy of it would take three.
// Who asks waits meanwhile, and all else of virtiofsd that opens and closes files is the same thread: so a number is the
// same file for us and, a moment later, for the call.
type callers struct {
	listener *listener
	threads  map[uint32]int // the directories /proc/TID/fd
	page     [4096]byte
	target   [unix.PathMax]byte
}

// maxThreads bounds what is remembered of threads that are gone. virtiofsd has few.
const maxThreads = 64

func (c *callers) close() {
	for _, fd := range c.threads {
		unix.Close(fd)
	}
	c.threads = map[uint32]int{}
}

// openFiles opens the directory in which a thread's descriptors are.
func openFiles(tid int) (int, error) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/fd", tid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("listing its descriptors: %w", err)
	}
	return fd, nil
}

// canLookAt tells why the memory or the descriptors of a process cannot be looked at.
func canLookAt(process int) error {
	// At this address there is nothing, which only who may look is told.
	var b [1]byte
	local := []unix.Iovec{{Base: &b[0], Len: 1}}
	if _, err := unix.ProcessVMReadv(process, local, []unix.RemoteIovec{{Base: 1, Len: 1}}, 0); !errors.Is(err, unix.EFAULT) {
		return fmt.Errorf("reading its memory: %w", err)
	}
	files, err := openFiles(process)
	if err != nil {
		return err
	}
	defer unix.Close(files)
	// The standard error, as any other.
	if _, err := unix.Readlinkat(files, "2", make([]byte, unix.PathMax)); err != nil {
		return fmt.Errorf("reading where its descriptors lead: %w", err)
	}
	return nil
}

// files returns the directory of the descriptors of who asks. Once opened it is of that thread, and of no other that has
// its number later.
func (c *callers) files(n *notification) (int, error) {
	if fd, ok := c.threads[n.pid]; ok {
		return fd, nil
	}
	fd, err := openFiles(int(n.pid))
	if err != nil {
		return -1, err
	}
	if !c.listener.valid(n) {
		unix.Close(fd)
		return -1, unix.ESRCH
	}
	if len(c.threads) == maxThreads {
		c.close()
	}
	c.threads[n.pid] = fd
	return fd, nil
}

// look calls f with the directory of the descriptors of who asks.
func (c *callers) look(n *notification, f func(files int) error) error {
	for again := false; ; again = true {
		files, err := c.files(n)
		if err != nil {
			return err
		}
		if err = f(files); !errors.Is(err, unix.ENOENT) {
			return err
		}
		if again {
			return unix.EBADF
		}
		// A thread that is gone, whose number another has now.
		unix.Close(files)
		delete(c.threads, n.pid)
	}
}

// descriptor is the number of one of who asks, as the kernel takes it from a call's argument.
func descriptor(arg uint64) (string, error) {
	number := int32(arg)
	if number < 0 {
		return "", unix.EBADF
	}
	return strconv.Itoa(int(number)), nil
}

// path asks the kernel for the path of a descriptor. For one of another mount namespace, that is the path there, as far
// as it is one of mounts.
func (c *callers) path(n *notification, number string) (path string, err error) {
	err = c.look(n, func(files int) error {
		path, err = readPath(files, number, c.target[:])
		return err
	})
	return path, err
}

// stat is that of a descriptor of who asks, or of a name in it.
func (c *callers) stat(n *notification, number, name string) (st unix.Stat_t, err error) {
	if name == "" {
		err = c.look(n, func(files int) error { return unix.Fstatat(files, number, &st, 0) })
		return st, err
	}
	files, err := c.files(n)
	if err != nil {
		return st, err
	}
	return st, unix.Fstatat(files, number+"/"+name, &st, unix.AT_SYMLINK_NOFOLLOW)
}

// flags are those with which a descriptor of who asks was opened, as proc_pid_fdinfo(5) tells them.
func (c *callers) flags(n *notification, number string) (flags int, err error) {
	var text [256]byte // the flags are in the second line
	size := 0
	err = c.look(n, func(files int) error {
		fd, err := unix.Openat(files, "../fdinfo/"+number, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		size, err = unix.Read(fd, text[:])
		return err
	})
	if err != nil {
		return 0, err
	}
	var offset int64
	if _, err := fmt.Sscanf(string(text[:size]), "pos:\t%d\nflags:\t%o\n", &offset, &flags); err != nil {
		return 0, fmt.Errorf("reading how a file was opened: %w", err)
	}
	return flags, nil
}

// open returns a descriptor of ours (O_PATH) for what one of who asks is, to be closed.
func (c *callers) open(n *notification, number string) (fd int, err error) {
	err = c.look(n, func(files int) error {
		fd, err = unix.Openat(files, number, unix.O_PATH|unix.O_CLOEXEC, 0)
		return err
	})
	return fd, err
}

// readPath reads a link of /proc that is the path of something open.
func readPath(dir int, name string, into []byte) (string, error) {
	n, err := unix.Readlinkat(dir, name, into)
	if err != nil {
		return "", err
	}
	if n == len(into) || n == 0 || into[0] != '/' {
		return "", errOutside
	}
	return string(into[:n]), nil
}

// read fills into from the memory of who asks.
func (c *callers) read(n *notification, address uint64, into []byte) error {
	local := unix.Iovec{Base: &into[0]}
	local.SetLen(len(into))
	got, err := unix.ProcessVMReadv(int(n.pid), []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(address), Len: len(into)}}, 0)
	if err == nil && got < len(into) {
		err = unix.EFAULT
	}
	return err
}

// usualName is what is read at first of a name: more than most have.
const usualName = 256

// texts reads the two names of a call, by one look at the memory if they are as short as most.
func (c *callers) texts(n *notification, addresses [2]uint64) (texts [2]string, err error) {
	var local [2]unix.Iovec
	var remote [2]unix.RemoteIovec
	var parts [2][]byte
	all := 0
	for i, address := range addresses {
		size := c.short(address)
		parts[i] = c.page[all : all+size]
		local[i].Base = &c.page[all]
		local[i].SetLen(size)
		remote[i] = unix.RemoteIovec{Base: uintptr(address), Len: size}
		all += size
	}
	got, err := unix.ProcessVMReadv(int(n.pid), local[:], remote[:], 0)
	for i, part := range parts {
		end := bytes.IndexByte(part, 0)
		if err != nil || got < all || end < 0 { // it is longer, or one of them is not there
			for i, address := range addresses {
				if texts[i], err = c.text(n, address); err != nil {
					return texts, err
				}
			}
			return texts, nil
		}
		texts[i] = string(part[:end])
	}
	return texts, nil
}

// short is how much of a name is read at first: up to the page's end, as the next one may not be there.
func (c *callers) short(address uint64) int {
	return min(usualName, len(c.page)-int(address%uint64(len(c.page))))
}

// text reads a string that ends with a NUL from the memory of who asks: no more than a path may have.
func (c *callers) text(n *notification, address uint64) (string, error) {
	var text []byte
	for len(text) < unix.PathMax {
		size := c.short(address)
		local := unix.Iovec{Base: &c.page[0]}
		local.SetLen(size)
		got, err := unix.ProcessVMReadv(int(n.pid), []unix.Iovec{local}, []unix.RemoteIovec{{Base: uintptr(address), Len: size}}, 0)
		if err != nil {
			return "", fmt.Errorf("reading a name: %w", err)
		}
		part, _, found := bytes.Cut(c.page[:got], []byte{0})
		if found && text == nil {
			return string(part), nil
		}
		text = append(text, part...)
		if found {
			return string(text), nil
		}
		address += uint64(got)
	}
	return "", unix.ENAMETOOLONG
}
