//go:build linux

package guest

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// slewLimit is how far the clock may have to go back for that to be done little
// by little, half a millisecond in each second: programs take time that passes
// twice badly. More than that comes of a host whose own clock was set back.
const slewLimit = time.Second

// Clock implements [Controller].
func (s *service) Clock(advance time.Duration) (time.Time, error) {
	if advance != 0 {
		for _, step := range clockSteps(advance) {
			if _, err := unix.Adjtimex(&step); err != nil {
				return time.Time{}, fmt.Errorf("cannot set the guest's clock: %w", err)
			}
		}
	}
	return time.Now(), nil
}

// clockSteps are the calls of adjtimex(2) that advance the clock. The first
// ends what an earlier one may still have to work off.
func clockSteps(advance time.Duration) []unix.Timex {
	slew := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT}
	if advance < 0 && advance > -slewLimit {
		slew.Offset = advance.Microseconds()
		return []unix.Timex{slew}
	}
	// The fraction of a second is never negative.
	seconds := advance.Truncate(time.Second)
	if seconds > advance {
		seconds -= time.Second
	}
	return []unix.Timex{slew, {
		Modes: unix.ADJ_SETOFFSET | unix.ADJ_NANO,
		Time:  unix.Timeval{Sec: int64(seconds / time.Second), Usec: int64(advance - seconds)},
	}}
}

// addEntropy credits the seed to the kernel's random number generator, see
// random(4). Writing to /dev/urandom would mix it in without trusting it, and
// programs could go on waiting for the first randomness.
func addEntropy(seed []byte) error {
	if len(seed) == 0 {
		return nil
	}
	file, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cannot add entropy: %w", err)
	}
	defer file.Close()
	// struct rand_pool_info: bits, bytes, data.
	info := binary.NativeEndian.AppendUint32(nil, uint32(8*len(seed)))
	info = binary.NativeEndian.AppendUint32(info, uint32(len(seed)))
	info = append(info, seed...)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info[0])))
	if errno != 0 {
		return fmt.Errorf("cannot add entropy: %w", errno)
	}
	// Until its next turn, up to a minute away, the generator would go on with
	// what a restored guest has in its memory, and another one like it, too.
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, file.Fd(), unix.RNDRESEEDCRNG, 0); errno != 0 {
		return fmt.Errorf("cannot use the new entropy: %w", errno)
	}
	return nil
}

// forgetNames drops what the kernel remembers of names and attributes, so that
// those of home and shares, which changed behind its back, are asked for anew.
// What files hold is read again at each open anyway.
func forgetNames() error {
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2\n"), 0o200); err != nil {
		return fmt.Errorf("cannot forget the names of files: %w", err)
	}
	return nil
}
