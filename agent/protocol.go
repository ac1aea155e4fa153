package agent

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// ProtocolVersion is the version of everything that this package says to the
// guest. It stands in the greeting, so that a program and an image which do
// not fit each other find out before the first request.
const ProtocolVersion = 1

const (
	// SerialPort is the name of the virtio-serial port that carries the agent.
	SerialPort = "sandbox.agent.0"

	// RequestExec is the channel request that starts a program by its exact
	// argument list. Its payload is an [ExecRequest] in JSON.
	RequestExec = "exec@sandbox"

	// RequestExecPart is the channel request that carries the beginning of a
	// payload of [RequestExec] that is too long for one request. There may be
	// many; they have no answer.
	RequestExecPart = "exec-part@sandbox"

	// MaxExec is how many bytes of arguments and variables a kernel takes at
	// most, whatever the limit of the stack is: _STK_LIM / 4 * 3 of Linux.
	MaxExec = 6 << 20

	// RequestCloseOutput is the channel request by which a client says that it
	// cannot take a command's output any more; it is OpenSSH's. With a payload
	// of [closeErrorOutput] it means the error output, which is ours.
	RequestCloseOutput = "eow@openssh.com"

	// RequestAgent is OpenSSH's channel request by which a client lends a
	// session the agent of its keys.
	RequestAgent = "auth-agent-req@openssh.com"

	// RequestAgentSocket is the request, of the whole connection, for a socket
	// whose connections come back as channels to that agent. The reply's
	// payload is the socket's path. It is there until the connection ends.
	RequestAgentSocket = "auth-agent@sandbox"

	// SubsystemControl is the SSH subsystem that speaks [ControlRequest] and
	// [ControlResponse], one JSON value a line.
	SubsystemControl = "sandbox"
)

// Kinds of the channels that a guest opens to a client.
const (
	channelAgent        = "auth-agent@openssh.com"
	channelForwardedTCP = "forwarded-tcpip" // RFC 4254 section 7.2
)

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
	// Entropy is credited to the guest's random number generator in full.
	Entropy []byte `json:"entropy,omitempty"`
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
}

// Bounds of what a guest may say of its start. Fewer than ten stages are known;
// one with more failed units than that is not helped by a longer list.
const (
	maxStages      = 100
	maxFailedUnits = 100
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

// ExecRequest asks for one process in the guest.
type ExecRequest struct {
	// Argv is the exact argument list; no shell reads it. If it is empty, the
	// user's login shell is started.
	Argv []RawString `json:"argv,omitempty"`
	// Env comes after the guest's own settings and wins over them.
	Env []RawString `json:"env,omitempty"`
	// Dir is the working directory; empty means the user's home, and a
	// relative path starts there.
	Dir RawString `json:"dir,omitempty"`
	// User is a name of the guest's /etc/passwd; empty means the image's user.
	User string `json:"user,omitempty"`
	// Login runs Argv through the user's login shell, so that the profile is
	// read first. The argument list stays exact.
	Login bool `json:"login,omitempty"`
	// Self runs the agent's own program by Argv, whatever Argv[0] is: see
	// [TransferArgs].
	Self bool `json:"self,omitempty"`
}

// RawString is a string of any bytes. In JSON it is an ordinary string where
// it is valid UTF-8, and {"base64": …} where it is not: file names and
// arguments need not be text.
type RawString string

type encodedString struct {
	Base64 []byte `json:"base64"`
}

// MarshalJSON implements [json.Marshaler].
func (s RawString) MarshalJSON() ([]byte, error) {
	if utf8.ValidString(string(s)) {
		return json.Marshal(string(s))
	}
	return json.Marshal(encodedString{[]byte(s)})
}

// UnmarshalJSON implements [json.Unmarshaler].
func (s *RawString) UnmarshalJSON(data []byte) error {
	var plain string
	if err := json.Unmarshal(data, &plain); err == nil {
		*s = RawString(plain)
		return nil
	}
	var encoded encodedString
	if err := json.Unmarshal(data, &encoded); err != nil {
		return fmt.Errorf(`neither a string nor {"base64": …}: %w`, err)
	}
	*s = RawString(encoded.Base64)
	return nil
}

// closeErrorOutput is a payload of [RequestCloseOutput]: the number that RFC
// 4254 section 5.2 gives to the error output, SSH_EXTENDED_DATA_STDERR.
const closeErrorOutput = "\x00\x00\x00\x01"

// ClosesErrorOutput reports whether a [RequestCloseOutput] with the payload is
// about the error output, and not about the standard output.
func ClosesErrorOutput(payload []byte) bool { return string(payload) == closeErrorOutput }

// Methods of the control subsystem.
const (
	MethodConfigure = "configure" // BootConfig → nothing, once it is applied
	MethodStatus    = "status"    // nothing → Status
	MethodWait      = "wait"      // WaitParams → Status
	MethodPowerOff  = "poweroff"  // nothing → nothing
	MethodSync      = "sync"      // nothing → nothing, once everything is written back
	MethodResume    = "resume"    // ResumeConfig → nothing, once it is applied
	MethodGrowDisk  = "grow-disk" // GrowDiskParams → nothing, once the file system has grown
	MethodClock     = "clock"     // ClockParams → ClockReading
)

// WaitParams are the parameters of [MethodWait].
type WaitParams struct {
	Stage Stage `json:"stage"`
}

// GrowDiskParams are the parameters of [MethodGrowDisk].
type GrowDiskParams struct {
	Bytes int64 `json:"bytes"` // the disk's new size
}

// ClockParams are the parameters of [MethodClock].
type ClockParams struct {
	// Advance is added to the guest's clock before it is read. Small amounts
	// below zero are worked off little by little.
	Advance time.Duration `json:"advance,omitempty"`
}

// ClockReading is the result of [MethodClock].
type ClockReading struct {
	Time time.Time `json:"time"`
}

// ControlRequest is one line from the host on the control subsystem.
type ControlRequest struct {
	ID     uint64          `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

// ControlResponse is one line from the guest. Responses come in the order in
// which the answers are ready; ID tells what they answer.
type ControlResponse struct {
	ID     uint64          `json:"id"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  *ControlError   `json:"error,omitempty"`
}

// Codes of a [ControlError].
const (
	CodeUnknownMethod     = "unknown-method"
	CodeBadRequest        = "bad-request"
	CodeAlreadyConfigured = "already-configured"
	CodeFailed            = "failed" // the guest tried and could not
)

// ControlError is the guest's refusal of a control request.
type ControlError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

func (e *ControlError) Error() string { return e.Message }
