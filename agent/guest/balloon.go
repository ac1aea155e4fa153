//go:build linux

package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// balloonModule drives the device that takes memory from the guest, and tells
// the host which memory the guest does not use.
const balloonModule = "virtio_balloon.ko"

// openBalloon opens the module in the directory of the initrd's modules, which
// is removed before it is loaded. It returns nil if there is none, because the
// kernel has the driver built in or the image is without it.
func openBalloon(dir string) *os.File {
	module, err := os.Open(filepath.Join(dir, balloonModule))
	if err != nil {
		return nil
	}
	return module
}

// loadBalloon loads and closes the module, which nobody needs before commands
// can run: it takes an emulated processor 40 ms.
func (s *service) loadBalloon() {
	if s.balloon == nil {
		return
	}
	defer s.balloon.Close()
	if err := loadModuleFile(s.balloon); err != nil && !errors.Is(err, fs.ErrExist) {
		s.logger.Warn("the host cannot take memory back", "module", balloonModule, "error", err)
	}
}
