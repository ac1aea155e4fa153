package wire

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// ProtocolVersion is the version of everything that host and guest say to each
// other. It stands in the greeting, so that a program and an image which do
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
	// of [CloseErrorOutput] it means the error output, which is ours.
	RequestCloseOutput = "eow@openssh.com"

	// RequestAgent is OpenSSH's channel request by which a client lends a
	// session the agent of its keys.
	RequestAgent = "auth-agent-req@openssh.com"

	// RequestAgentSocket is the request, of the whole connection, for a socket
	// whose connections come back as channels to that agent. The reply's
	// payload is the socket's path. It is there until the connection ends.
	RequestAgentSocket = "auth-agent@sandbox"

	// RequestKeysSocket is the request, of the whole connection, for the socket
	// [KeysSocket], which takes the place of an earlier connection's.
	RequestKeysSocket = "keys-socket@sandbox"

	// KeysSocket is where programs in the guest find the keys that are lent to
	// all of them. Its connections come to the host as channels.
	KeysSocket = "/run/sandbox-agent.keys"

	// RequestGPGSocket is the same for the socket [GPGSocket].
	RequestGPGSocket = "gpg-socket@sandbox"

	// GPGSocket is where programs in the guest find the OpenPGP keys that are
	// lent to all of them.
	GPGSocket = "/run/sandbox-agent.gpg"

	// SubsystemControl is the SSH subsystem that speaks [ControlRequest] and
	// [ControlResponse], one JSON value a line.
	SubsystemControl = "sandbox"
)

// Kinds of the channels that a guest opens to a client.
const (
	ChannelAgent        = "auth-agent@openssh.com"
	ChannelGPG          = "gpg-agent@sandbox"
	ChannelForwardedTCP = "forwarded-tcpip" // RFC 4254 section 7.2
)

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

// CloseErrorOutput is a payload of [RequestCloseOutput]: the number that RFC
// 4254 section 5.2 gives to the error output, SSH_EXTENDED_DATA_STDERR.
const CloseErrorOutput = "\x00\x00\x00\x01"

// ClosesErrorOutput reports whether a [RequestCloseOutput] with the payload is
// about the error output, and not about the standard output.
func ClosesErrorOutput(payload []byte) bool { return string(payload) == CloseErrorOutput }

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
	MethodPorts     = "ports"     // the ports that are known → those that there are, once they are others
	MethodMount     = "mount"     // Mount → nothing, once it is mounted
	MethodTouch     = "touch"     // TouchParams → nothing, once programs are told
	MethodForget    = "forget"    // nothing → nothing, once files that nobody uses are forgotten
	MethodUnmount   = "unmount"   // UnmountParams → Users, of what is still mounted; nobody: it is unmounted
)

// WaitParams are the parameters of [MethodWait].
type WaitParams struct {
	Stage string `json:"stage"`
}

// GrowDiskParams are the parameters of [MethodGrowDisk].
type GrowDiskParams struct {
	Bytes int64 `json:"bytes"` // the disk's new size
}

// UnmountParams are the parameters of [MethodUnmount].
type UnmountParams struct {
	Tag string `json:"tag"`
	// Force unmounts what is in use, too: it is gone for whoever looks for it, and later for those who have it.
	Force bool `json:"force,omitempty"`
}

// TouchParams are the parameters of [MethodTouch].
type TouchParams struct {
	Tag string `json:"tag"`
	// The time of modification that files are given; one that no file of the host's gets.
	Seconds     int64         `json:"seconds"`
	Nanoseconds int           `json:"nanoseconds"`
	Names       []TouchedName `json:"names"`
}

// TouchedName is a name that the host has changed.
type TouchedName struct {
	Path  RawString `json:"path"`
	Other bool      `json:"other,omitempty"` // it may lead to something else than before
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
