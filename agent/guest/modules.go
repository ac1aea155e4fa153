//go:build linux

package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// loadModules gives the kernel the modules that the directory's file "order"
// names, and removes the directory: the initrd's memory is the guest's. Each line
// of the file is a chain, to be loaded in its order; chains are loaded at the
// same time, because most of a module's time is the check of its signature.
//
// Those of the vsock transport are loaded with vsock set only: a machine without
// its device would spend time on them for nothing. lateModules are left to
// loadLateModules.
func loadModules(dir string, vsock bool, logger *slog.Logger) error {
	order, err := os.ReadFile(filepath.Join(dir, "order"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // everything is built in
	}
	if err != nil {
		return fmt.Errorf("cannot read the list of kernel modules: %w", err)
	}
	var chains sync.WaitGroup
	for chain := range strings.Lines(string(order)) {
		names := slices.DeleteFunc(strings.Fields(chain), func(name string) bool {
			return isLate(name) || (!vsock && strings.Contains(name, "vsock"))
		})
		chains.Go(func() { loadChain(dir, names, logger) })
	}
	chains.Wait()
	if err := os.RemoveAll(dir); err != nil {
		logger.Warn("the kernel modules could not be removed from memory", "err", err)
	}
	return nil
}

// loadChain loads modules one after the other. One that is built into the
// kernel, or that the initrd leaves out because it is, is passed over. One that
// fails is only logged; whoever needs its device will say what is missing.
func loadChain(dir string, names []string, logger *slog.Logger) {
	for _, name := range names {
		err := loadModule(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			logger.Warn("a kernel module could not be loaded", "module", name, "err", err)
		}
	}
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	return loadModuleFile(file)
}

func loadModuleFile(file *os.File) error {
	return unix.FinitModule(int(file.Fd()), "", 0)
}
