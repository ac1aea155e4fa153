package qemu

import (
	"errors"
	"os"

	"github.com/sourcery-zone/sandbox/internal/confine"
)

// Files are what QEMU inherits open. The zero value has none.
type Files struct {
	list  []confine.File // the first has the number firstFD in QEMU
	owned []*os.File
}

// firstFD is the number after those of standard input, output and error.
const firstFD = 3

// Add takes over a file, and returns the number that it will have in QEMU: a value for the configuration's …FD fields.
// The file is closed by Start, whatever comes of it, or by Close: the other end of a socket reports end of file when
// QEMU ends only if nobody else has this one.
func (f *Files) Add(file *os.File) (fd int) {
	f.owned = append(f.owned, file)
	return f.lend(confine.File{File: file})
}

// lend is Add for a file that stays somebody else's.
func (f *Files) lend(file confine.File) (fd int) {
	f.list = append(f.list, file)
	return firstFD + len(f.list) - 1
}

// get returns the file with that number, or nil.
func (f *Files) get(fd int) *confine.File {
	if i := fd - firstFD; i >= 0 && i < len(f.list) {
		return &f.list[i]
	}
	return nil
}

// Close closes the files that no Start has closed. It may be called more than once.
func (f *Files) Close() error {
	var errs []error
	for _, file := range f.owned {
		errs = append(errs, file.Close())
	}
	*f = Files{}
	return errors.Join(errs...)
}
