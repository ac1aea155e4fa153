//go:build linux

package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// lateModules drive devices that nobody needs before commands can run, in the
// order in which they are loaded: one takes an emulated processor 40 ms. The first
// takes memory from the guest, and tells the host which memory the guest does not
// use. The others tell the host of a panic.
func lateModules() []string { return []string{"virtio_balloon.ko", "pvpanic.ko", "pvpanic-pci.ko"} }

func isLate(module string) bool { return slices.Contains(lateModules(), module) }

// openLateModules opens those that are in the directory of the initrd's modules,
// which is removed before they are loaded. The kernel has the drivers of others
// built in, or the image is without them.
func openLateModules(dir string) (modules []*os.File) {
	for _, name := range lateModules() {
		if module, err := os.Open(filepath.Join(dir, name)); err == nil {
			modules = append(modules, module)
		}
	}
	return modules
}

// loadLateModules loads and closes the modules.
func (s *service) loadLateModules() {
	for _, module := range s.late {
		if err := loadModuleFile(module); err != nil && !errors.Is(err, fs.ErrExist) {
			s.logger.Warn("a device of the guest is not used", "module", filepath.Base(module.Name()), "err", err)
		}
		module.Close()
	}
}
