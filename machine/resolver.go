package machine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// resolverFile says where names are resolved on this machine (resolv.conf(5)).
const resolverFile = "/etc/resolv.conf"

// maxResolverFile is a hundred times what such a file holds, in bytes.
const maxResolverFile = 64 << 10

// resolver is a copy of resolverFile that follows it, in memory: QEMU, whose
// network answers the guest's questions for names, sees no file of this
// machine, and where a laptop resolves names changes with each network.
type resolver struct {
	file    *os.File
	watcher *fsnotify.Watcher
	done    chan struct{}
}

// newResolver copies the file at path, which may be absent. The caller closes
// the resolver.
func newResolver(path string, log *slog.Logger) (*resolver, error) {
	fd, err := unix.MemfdCreate("resolv.conf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copying %s: %w", path, err)
	}
	r := &resolver{file: os.NewFile(uintptr(fd), path), done: make(chan struct{})}
	if r.watcher, err = fsnotify.NewWatcher(); err != nil {
		return nil, errors.Join(fmt.Errorf("watching %s: %w", path, err), r.file.Close())
	}
	// Its directory, because such files are replaced and not rewritten; and that
	// of what it is a link to.
	dirs := []string{filepath.Dir(path)}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		dirs = append(dirs, filepath.Dir(target))
	}
	for _, dir := range dirs {
		if err := r.watcher.Add(dir); err != nil {
			log.Warn("the guest does not hear of changes to "+path, "err", err)
		}
	}
	if err := r.copy(path); err != nil {
		log.Warn("the guest can resolve no names", "err", err)
	}
	go r.follow(path, log)
	return r, nil
}

// follow ends with the watcher.
func (r *resolver) follow(path string, log *slog.Logger) {
	defer close(r.done)
	for {
		select {
		case _, ok := <-r.watcher.Events:
			if !ok {
				return
			}
			if err := r.copy(path); err != nil { // as between its removal and its return
				log.Debug("the guest resolves names as before", "err", err)
			}
		case _, ok := <-r.watcher.Errors:
			if !ok {
				return
			}
		}
	}
}

// copy makes the copy equal to the file, and changes nothing if it is.
func (r *resolver) copy(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	now, err := io.ReadAll(io.LimitReader(f, maxResolverFile))
	if err != nil {
		return err
	}
	before := make([]byte, maxResolverFile)
	n, err := r.file.ReadAt(before, 0)
	if err != nil && err != io.EOF {
		return err
	}
	if bytes.Equal(before[:n], now) {
		return nil
	}
	if _, err := r.file.WriteAt(now, 0); err != nil {
		return err
	}
	return r.file.Truncate(int64(len(now)))
}

// File returns the copy, which stays the resolver's; nil for a nil one.
func (r *resolver) File() *os.File {
	if r == nil {
		return nil
	}
	return r.file
}

// Close may be called on nil.
func (r *resolver) Close() {
	if r == nil {
		return
	}
	r.watcher.Close()
	<-r.done
	r.file.Close()
}
