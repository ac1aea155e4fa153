package agent

import (
	"fmt"
	"net"
	"slices"
	"time"

	"github.com/sourcery-zone/sandbox/agent/internal/wire"
)

// ProtocolVersion is the version of everything that this package says to the
// guest. It stands in the greeting, so that a program and an image which do
// not fit each other find out before the first request.
const ProtocolVersion = wire.ProtocolVersion

// A Stage is a point of the guest's start that can be waited for.
type Stage string

const (
	// StageAgent is reached when the guest's file systems, home and shares
	// are mounted and commands can run.
	StageAgent Stage = "agent"

	// StageSystem is reached when the image's own init says that the system
	// is up. It may be up with failed units: see [Status].
	StageSystem Stage = "system"
)

// Points of the guest's start that are only recorded, in the order in which
// they usually come. They are keys of [Status.Reached].
const (
	StageInit       Stage = "init"       // the first process began
	StageServing    Stage = "serving"    // the transport is open
	StageStore      Stage = "store"      // store and overlay are mounted
	StageConfigured Stage = "configured" // the host's configuration arrived
	StageMounted    Stage = "mounted"    // home and shares are mounted
	StageNetwork    Stage = "network"    // the network has an address
)

// BootConfig is what one boot of a guest gets from its host. Nothing in it is
// part of an image.
type BootConfig struct {
	Hostname string  `json:"hostname,omitempty"`
	Mounts   []Mount `json:"mounts,omitempty"`
	// AuthorizedKeys are lines in the form of ~/.ssh/authorized_keys. They
	// open TCP port 22 for the image's user.
	AuthorizedKeys []string `json:"authorizedKeys,omitempty"`
	// HostKey is the private key, in PEM, by which the guest proves itself on
	// TCP port 22. Without it the port stays closed.
	HostKey []byte `json:"hostKey,omitempty"`
	// TimeZone becomes the guest's, unless the guest has chosen one itself.
	TimeZone TimeZone `json:"timeZone,omitzero"`
	// Certificates, in PEM, are those of authorities that the guest's programs
	// are to believe besides those that they know: see [FeatureCertificates].
	Certificates []byte `json:"certificates,omitempty"`
	// Environment are variables, as NAME=VALUE, of each process that the agent starts for somebody. The guest's
	// own settings win over them, and what is set for the process over both: see [FeatureEnvironment].
	Environment []string `json:"environment,omitempty"`
	// Caches are disks of which the guest mounts what they keep: see [FeatureCaches].
	Caches []Cache `json:"caches,omitempty"`
	// Files are written into the home of the image's user, for that user alone: see [FeatureFiles].
	Files []File `json:"files,omitempty"`
	// Entropy is credited to the guest's random number generator in full.
	Entropy []byte `json:"entropy,omitempty"`
}

// File is one that a guest's home gets if it is not there yet.
type File struct {
	Path    string `json:"path"` // below the home
	Content []byte `json:"content"`
	// Ours is text by which a file that is there is known as one that the host has sent, and is replaced. Empty: none is.
	Ours string `json:"ours,omitempty"`
}

// Cache is a directory of the guest that is on a disk of its own, on which the guest makes a file system if it has none.
type Cache struct {
	Serial string `json:"serial"` // the serial number of its drive
	Target string `json:"target"` // an absolute path, on which it is mounted after home and shares
}

// TimeZone is a time zone of the tz database.
type TimeZone struct {
	// Name is such as "Europe/Stockholm"; empty means that the host's has none.
	Name string `json:"name,omitempty"`
	// Data is the zone's file in the form of tzfile(5), for a guest that does
	// not know it. Without it there is no zone.
	Data []byte `json:"data,omitempty"`
}

// ResumeConfig is what a guest is told when it goes on after it stood still.
type ResumeConfig struct {
	// Entropy is credited to the guest's random number generator, which is
	// seeded anew: a guest that is restored twice must not repeat itself.
	Entropy []byte `json:"entropy,omitempty"`
	// Restored says that the guest's memory is of another time than the files
	// of its home and shares.
	Restored bool `json:"restored,omitempty"`
	// Disconnected says that all which the guest was connected to over its network has ended, and that nobody else tells it.
	// An agent of before does nothing for that.
	Disconnected bool `json:"disconnected,omitempty"`
	// Certificates are what those of [BootConfig] are, at this time.
	Certificates []byte `json:"certificates,omitempty"`
	// Become makes the guest that of another sandbox than the one whose memory
	// it has. Nil leaves it who it is.
	Become *Identity `json:"become,omitempty"`
}

// Identity is what tells two guests apart that have the same memory. Besides
// what it holds, they get machine and boot ids of their own.
type Identity struct {
	// Config is what the guest would have been told at its boot. Mounts that it
	// has already stay as they are; Time and Entropy are not used.
	Config BootConfig `json:"config"`
	// Card is the hardware address of the guest's network card from then on; empty, it keeps its own. An agent of before
	// leaves it as well.
	Card net.HardwareAddr `json:"card,omitempty"`
	// Key is the public key, in SSH's wire form, that alone opens the agent's
	// channel from the next connection on.
	Key []byte `json:"key"`
}

// A Mount is a virtiofs file system that the guest is to mount.
type Mount struct {
	Tag string `json:"tag"`
	// Target is a path in the guest; a relative one starts at the user's home.
	Target   string `json:"target"`
	ReadOnly bool   `json:"readOnly,omitempty"`
	// CopyOnWrite makes the guest keep what it writes there for itself, on its disk if it has one: see
	// [FeatureCopyOnWrite] and [Client.Workspace].
	CopyOnWrite bool `json:"copyOnWrite,omitempty"`
	// Origin names the host's directory of a copy-on-write share, in whatever way. One in the place of another, with another
	// name, has changes of its own, and those of the other are kept for when it comes back.
	Origin string `json:"origin,omitempty"`
	// File is the name of the only file that the host serves, which is what Target becomes then: see [FeatureShareFile].
	// Empty: all that the host serves is mounted there.
	File string `json:"file,omitempty"`
	// Unreadable are lines of gitignore(5), for a repository at Target, of what the host lets nobody in the guest read.
	// Git there ignores what they are for, unless it is told of it by name: it cannot add it, and would add nothing at all.
	// An older agent does not know of them.
	Unreadable string `json:"unreadable,omitempty"`
}

// SamePlace tells whether the two are one device in one place. One of a fork may
// be read-only where the other is not: then the host refuses what is written.
func (m Mount) SamePlace(other Mount) bool { return m.Tag == other.Tag && m.Target == other.Target }

// Status is what the guest knows about its own start.
type Status struct {
	// Reached has the guest's uptime, as a duration since its kernel started,
	// at each point that it has passed.
	Reached map[Stage]time.Duration `json:"reached"`
	// Uptime is the guest's uptime when it answered.
	Uptime time.Duration `json:"uptime"`
	// System is init's own word for its state, such as "running" or
	// "degraded". It is empty until init has said something.
	System string `json:"system,omitempty"`
	// FailedUnits are the units that failed, if the system is degraded.
	FailedUnits []string `json:"failedUnits,omitempty"`
	Network     Network  `json:"network"`
	// Disk is the device that keeps what is written outside home and shares.
	// It is empty if that is kept in memory.
	Disk string `json:"disk,omitempty"`
	// Failure says why the guest will never reach its next stage.
	Failure string `json:"failure,omitempty"`
	// Features are what the agent can do; nil from one that does not tell.
	Features []Feature `json:"features,omitempty"`
}

// Bounds of what a guest may say of its start. Fewer than ten stages are known;
// one with more failed units than that is not helped by a longer list.
const (
	maxStages      = 100
	maxFailedUnits = 100
	maxFeatures    = 1000
)

// bounded is the status without what no person could read: it is kept in files
// and shown.
func (s Status) bounded() Status {
	for stage := range s.Reached {
		if len(stage) > maxText || len(s.Reached) > maxStages {
			delete(s.Reached, stage)
		}
	}
	if more := len(s.FailedUnits) - maxFailedUnits; more > 0 {
		s.FailedUnits = append(s.FailedUnits[:maxFailedUnits:maxFailedUnits], fmt.Sprintf("and %d more", more))
	}
	for _, text := range []*string{&s.System, &s.Failure, &s.Disk, &s.Network.Interface, &s.Network.Address, &s.Network.Problem} {
		*text = clip(*text)
	}
	for i, unit := range s.FailedUnits {
		s.FailedUnits[i] = clip(unit)
	}
	s.Features = slices.DeleteFunc(s.Features[:min(len(s.Features), maxFeatures)], func(f Feature) bool { return len(f) > maxText })
	return s
}

// Network is the state of the guest's network card.
type Network struct {
	Up        bool   `json:"up"`
	Interface string `json:"interface,omitempty"`
	Address   string `json:"address,omitempty"`
	// Problem says why the network is not up, if there is a network card.
	Problem string `json:"problem,omitempty"`
}
