package tree

import (
	"archive/tar"
	"time"

	"golang.org/x/sys/unix"
)

// A stream is a tar archive. Between Pack and Unpack, a file that is large, has
// holes or is of no known size goes in chunks, so that it is read to its end
// whatever its size was when it was opened, and its holes take no room: an entry
// for each chunk, all of one name, with these records.
const (
	recordOffset = "SANDBOX.offset" // where the chunk begins in the file; in all but the first, whose is 0
	recordMore   = "SANDBOX.more"   // "1" in all but the last
	recordSize   = "SANDBOX.size"   // of the whole file, in the last
)

// chunkSize is how much of a file is read before anything of it is sent.
// Smaller files are sent in one entry, with the size that they turn out to have.
const chunkSize = 1 << 20

// archiveMost is how much of something of unknown size goes into an archive for
// other programs, which have to be told the size first.
const archiveMost = 64 << 20

// header describes something as a tar stream does, without owners.
func header(st *unix.Stat_t, name string) *tar.Header {
	h := &tar.Header{
		Format: tar.FormatPAX, Typeflag: tar.TypeReg, Name: name, Mode: int64(st.Mode & 0o7777),
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
	}
	return h
}
