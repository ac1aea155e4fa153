package gate

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// TouchTime is a time of modification that no file gets where the gate asks about times: whoever is to be given it stays
// as it is, and the server is told that it was done. So the guest's kernel tells programs there that the file was
// modified, as it does when a program of its own changes times, and nothing happens on the host. It is long after the end
// of all calendars, and the same for all: a guest that uses it by itself deceives nobody but itself.
var TouchTime = unix.Timespec{Sec: 0x73616e64626f78}

// utimensat does nothing for a file that is only touched.
func (g *Gate) utimensat(n *notification) (bool, error) {
	if n.args[2] == 0 {
		return false, nil // the present time
	}
	var times [2 * timespecSize]byte // of access and of modification
	if err := g.callers.read(n, n.args[2], times[:]); err != nil {
		return false, err
	}
	modified := times[timespecSize:]
	return int64(binary.NativeEndian.Uint64(modified)) == TouchTime.Sec && int64(binary.NativeEndian.Uint64(modified[8:])) == TouchTime.Nsec, nil
}

// timespecSize is how many bytes one takes on the architectures that we know.
const timespecSize = 16
