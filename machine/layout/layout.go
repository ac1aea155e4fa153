// Package layout names every file of a sandbox: its state directory, which stays,
// and its runtime directory, which is there while it runs.
//
// Both belong to one user and are open to nobody else. Names that begin with a dot
// are no sandboxes: they are being made, or are being removed.
package layout

import (
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/flock"
)

// Sandbox is where one sandbox keeps its files.
type Sandbox struct {
	Dirs Dirs
	Name string
}

// Dir is the state directory.
func (s Sandbox) Dir() string { return filepath.Join(s.Dirs.State, s.Name) }

// Path is a file in the state directory, such as ConfigFile.
func (s Sandbox) Path(name string) string { return filepath.Join(s.Dir(), name) }

// Home is the guest user's home.
func (s Sandbox) Home() string { return s.Path(HomeDir) }

// Disk is the directory of the guest's disk of that name, DiskDir or one of CacheDir. It is
// there from the first start of a sandbox with such a disk on; package disk says what is in it.
func (s Sandbox) Disk(name string) string { return s.Path(name) }

// RestoredDisk is what is about to take the place of Disk.
func (s Sandbox) RestoredDisk(name string) string { return s.Disk(name) + restored }

// Key is the private key ClientKey or HostKey.
func (s Sandbox) Key(name string) string { return filepath.Join(s.Dir(), KeysDir, name) }

// Log is one of the logs, such as ConsoleLog.
func (s Sandbox) Log(name string) string { return filepath.Join(s.Dir(), LogsDir, name) }

// Snapshots is the directory of all snapshots, which is there with the first.
func (s Sandbox) Snapshots() string { return s.Path(SnapshotsDir) }

// Snapshot is the directory of the snapshot with that tag.
func (s Sandbox) Snapshot(tag string) string { return filepath.Join(s.Snapshots(), tag) }

// RuntimeDir is the directory of the sockets.
func (s Sandbox) RuntimeDir() string { return filepath.Join(s.Dirs.Runtime, s.Name) }

// API is the socket of the supervisor's API.
func (s Sandbox) API() string { return filepath.Join(s.RuntimeDir(), apiSocket) }

// Share is the socket on which virtiofsd serves what the guest knows by the tag.
func (s Sandbox) Share(tag string) string { return filepath.Join(s.RuntimeDir(), tag) }

// Lock takes the sandbox's lock, which its supervisor holds while it lives and each
// command while it changes the sandbox. It fails with flock.ErrLocked if somebody has
// it, and with fs.ErrNotExist if the sandbox is gone. The caller closes the file.
func (s Sandbox) Lock() (*os.File, error) { return flock.Try(s.Path(LockFile), true) }
