package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/network"
)

// maxResolverFile is a hundred times what a resolv.conf(5) holds, in bytes.
const maxResolverFile = 64 << 10

// resolver is a copy of this machine's resolv.conf(5) that follows it, in memory:
// QEMU, whose network answers the guest's questions for names, sees no file of
// this machine, and where a laptop resolves names changes with each network. QEMU
// asks the first server in it and no other, so that one that answers is put first.
type resolver struct {
	file    *os.File
	watcher *fsnotify.Watcher
	choose  chooseServer
	log     *slog.Logger
	done    chan struct{}

	text []byte // of the machine's file
}

// chooseServer returns the server of a resolv.conf(5) that answers, or nothing. It
// may take its time: until then, the copy is what the file is.
type chooseServer func(ctx context.Context, text string) (server string)

// newResolver copies the file at path, which may be absent. The caller closes
// the resolver.
func newResolver(path string, choose chooseServer, log *slog.Logger) (*resolver, error) {
	fd, err := unix.MemfdCreate("resolv.conf", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("copying %s: %w", path, err)
	}
	r := &resolver{file: os.NewFile(uintptr(fd), path), choose: choose, log: log, done: make(chan struct{})}
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
	if _, err := r.copy(path); err != nil {
		log.Warn("the guest can resolve no names", "err", err)
	}
	go r.follow(path)
	return r, nil
}

// follow ends with the watcher.
func (r *resolver) follow(path string) {
	defer close(r.done)
	for changed := true; changed; {
		ctx, cancel := context.WithCancel(context.Background())
		chosen, text := make(chan string, 1), string(r.text)
		go func() { chosen <- r.choose(ctx, text) }()
		changed = r.await(path, chosen)
		cancel()
	}
}

// await puts the server first that is chosen, and returns true when the file has
// another text, or false when the watcher has ended.
func (r *resolver) await(path string, chosen <-chan string) bool {
	for {
		select {
		case server := <-chosen:
			if server == "" {
				continue
			}
			if err := r.write([]byte(network.PutFirst(string(r.text), server))); err != nil {
				r.log.Warn("the guest's names are asked of the first server, which does not answer", "err", err)
			}
		case _, ok := <-r.watcher.Events:
			if !ok {
				return false
			}
			changed, err := r.copy(path)
			if err != nil { // as between its removal and its return
				r.log.Debug("the guest resolves names as before", "err", err)
			}
			if changed {
				return true
			}
		case _, ok := <-r.watcher.Errors:
			if !ok {
				return false
			}
		}
	}
}

// copy makes the copy equal to the file, and changes nothing if that is as before.
func (r *resolver) copy(path string) (changed bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	now, err := io.ReadAll(io.LimitReader(f, maxResolverFile))
	if err != nil || bytes.Equal(r.text, now) {
		return false, err
	}
	r.text = now
	return true, r.write(now)
}

// write changes the copy.
func (r *resolver) write(text []byte) error {
	if _, err := r.file.WriteAt(text, 0); err != nil {
		return err
	}
	return r.file.Truncate(int64(len(text)))
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
