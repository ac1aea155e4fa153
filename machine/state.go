package machine

import (
	"net/netip"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/process"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

// Status is where a sandbox is in its life.
type Status string

// The states of a sandbox.
const (
	StatusCreated  Status = "created"  // never started
	StatusStarting Status = "starting" // its guest is not ready yet
	StatusRunning  Status = "running"  // commands can run
	StatusPaused   Status = "paused"   // stands still: State.Reason says why
	StatusStopping Status = "stopping" // powering down
	StatusStopped  Status = "stopped"  // ended as asked, or by its guest
	StatusCrashed  Status = "crashed"  // ended otherwise: State.Reason says how
	StatusBroken   Status = "broken"   // its files cannot be read: State.Reason says why
)

// State is what became of a sandbox, as its supervisor last wrote it.
type State struct {
	Status       Status            `json:"status"`
	Reason       string            `json:"reason,omitempty"`
	API          int               `json:"api,omitempty"`        // version of the supervisor's API
	Supervisor   int               `json:"supervisor,omitempty"` // pid
	Identity     *process.Identity `json:"identity,omitempty"`   // of the supervisor, while it lives
	QEMU         int               `json:"qemu,omitempty"`       // pid
	Gateway      int               `json:"gateway,omitempty"`    // pid of the process between guest and network
	Started      time.Time         `json:"started,omitzero"`
	Ended        time.Time         `json:"ended,omitzero"`
	Timings      []Timing          `json:"timings,omitempty"`
	Accel        string            `json:"accel,omitempty"`
	AccelNote    string            `json:"accelNote,omitempty"` // why not KVM, and what to do
	Machine      string            `json:"machine,omitempty"`
	QEMUVer      string            `json:"qemuVersion,omitempty"`
	Transport    agent.Transport   `json:"transport,omitempty"`
	Upstream     string            `json:"upstreamProxy,omitempty"` // by which the guest reaches the Internet, without passwords
	SSHPort      int               `json:"sshPort,omitempty"`
	Forwards     []network.Forward `json:"forwards,omitempty"`
	Ports        []GuestPort       `json:"ports,omitempty"`        // on which the guest says that its programs listen
	Argv         []string          `json:"argv,omitempty"`         // of QEMU
	Files        []qemu.OpenFile   `json:"files,omitempty"`        // that QEMU inherited, besides its sockets
	Walls        []confine.Wall    `json:"walls,omitempty"`        // that keep QEMU from the rest of the machine
	GatewayWalls []confine.Wall    `json:"gatewayWalls,omitempty"` // the same of the gateway
	Shares       []ServedShare     `json:"shares,omitempty"`       // the home first
	Refusals     []Refusal         `json:"refusals,omitempty"`     // of rules for shares, the last ones
	Questions    []Question        `json:"questions,omitempty"`    // to the user: those that are open, and the last that have ended
	// Clones are the commits to which branches, stash and HEAD of the guest's clones led when it was last stopped in order, by
	// the places of the clones. Of one that is not there, they are not known.
	Clones map[string][]string `json:"clones,omitempty"`
	System string              `json:"system,omitempty"`
	Failed []string            `json:"failedUnits,omitempty"`
}

// GuestPort is a port of a guest on which a program listens.
type GuestPort struct {
	agent.Port
	// Published is the host's address that leads there because of Access.AutoPublish, if one does.
	Published netip.AddrPort `json:"published,omitzero"`
}

// ServedShare is how a directory is served to the guest.
type ServedShare struct {
	Source    string `json:"source"`
	Target    string `json:"target"`            // in the guest
	Tag       string `json:"tag"`               // by which the guest's agent knows it
	File      bool   `json:"file,omitempty"`    // it is a single file
	Isolation string `json:"isolation"`         // of its virtiofsd from the rest of the host
	Changed   string `json:"changed,omitempty"` // what is at Source now in place of the directory or file that the guest has
	Weak      bool   `json:"weak,omitempty"`    // nothing but virtiofsd itself keeps the guest to the directory
}

// Refusal is something that a rule for a share kept the guest from. The same one is told
// again after a minute at the earliest.
type Refusal struct {
	Time   time.Time `json:"time"` // two have different ones
	Share  string    `json:"share"`
	Verb   gate.Verb `json:"verb"`
	Path   string    `json:"path"` // in the share
	Rule   string    `json:"rule"`
	Reason string    `json:"reason"`
}

// Live tells whether a supervisor must be there.
func (s State) Live() bool {
	switch s.Status {
	case StatusStarting, StatusRunning, StatusPaused, StatusStopping:
		return true
	}
	return false
}

// Timing is one stage of a start.
type Timing struct {
	Stage string        `json:"stage"`
	After time.Duration `json:"after"` // nanoseconds since the supervisor started
}

// The stages of a start, in order.
const (
	StageShares = "shares" // every virtiofsd runs
	StageQEMU   = "qemu"   // QEMU answers on its monitor
	StageHello  = "hello"  // the guest's agent answers
	StageAgent  = "agent"  // home and shares are mounted and commands can run
	StageSystem = "system" // the image's own readiness
)

// Time returns when stage was reached, counted from the supervisor's start,
// and whether it was.
func (s State) Time(stage string) (time.Duration, bool) {
	for _, t := range s.Timings {
		if t.Stage == stage {
			return t.After, true
		}
	}
	return 0, false
}
