// Package wire is what the two halves of a gateway say to each other: over a socket of whole messages
// (SOCK_SEQPACKET), each a Request in JSON with a descriptor if it has one, to which an Answer comes back.
package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/socketpair"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

// maxMessage bounds a message, in bytes.
const maxMessage = 128 << 10

// Request is one of these.
type Request struct {
	Secret    *Secret   `json:"secret,omitempty"`    // with its value in a file, or without one; before the start
	Start     *Start    `json:"start,omitempty"`     // with the link to the guest's card; the first request but for secrets
	Value     *Value    `json:"value,omitempty"`     // with a file, or without one: then the secret has none any more
	Publish   *Publish  `json:"publish,omitempty"`   // with a socket of the host's
	Unpublish int       `json:"unpublish,omitempty"` // the ID of what was published
	Loopback  *Loopback `json:"loopback,omitempty"`  // with a connection, or without one
	Rules     *Rules    `json:"rules,omitempty"`     // in place of those of before
	AllowOnce string    `json:"allowOnce,omitempty"` // the ID of a stack.Question
	Authority []byte    `json:"authority,omitempty"` // as in a Start that had none
}

// Secret is one that the guest has a placeholder of. What it is, is in no message.
type Secret struct {
	Spec        string `json:"spec"` // see secret.Parse; without a source
	Placeholder string `json:"placeholder"`
}

// Value gives a secret another value.
type Value struct {
	Name string `json:"name"` // of the secret
}

// Start describes the guest's network.
type Start struct {
	MTU  int          `json:"mtu"` // bytes of an IP packet
	Mode network.Mode `json:"mode"`
	Rules
	HostPorts []network.HostPort `json:"hostPorts,omitempty"`
	Upstream  upstream.Settings  `json:"upstream,omitzero"` // with passwords
	HostName  string             `json:"hostName,omitempty"`
	Card      net.HardwareAddr   `json:"card,omitempty"`   // see stack.Config
	Search    []string           `json:"search,omitempty"` // domains that are appended to short names
	Remedy    string             `json:"remedy,omitempty"` // a command to which a rule is appended

	Authority []byte `json:"authority,omitempty"` // secret: see authority.Parse

	Responses []Response `json:"responses,omitempty"`
}

// Response is what the guest's requests to a path of a host are answered with: see proxy.Answer.
type Response struct {
	Host string          `json:"host"`
	Port uint16          `json:"port"`
	Path string          `json:"path"`
	JSON json.RawMessage `json:"json"`
}

// Rules open and close what a mode does not.
type Rules struct {
	Allow []string `json:"allow,omitempty"` // see policy.ParseRule
	Deny  []string `json:"deny,omitempty"`  // see policy.ParseDeny
}

// Publish leads what arrives at a socket to a port of the guest.
type Publish struct {
	ID        int    `json:"id"`    // not 0, and no other's
	Proto     string `json:"proto"` // network.TCP: the socket listens; network.UDP
	GuestPort uint16 `json:"guestPort"`
}

// Loopback is what came of a notice that asked for a connection.
type Loopback struct {
	ID    int    `json:"id"`
	Error string `json:"error,omitempty"` // why there is no connection
}

// Answer says why a request was not fulfilled.
type Answer struct {
	Error string `json:"error,omitempty"`
}

// Refusal is the error of a request that was answered.
type Refusal struct{ Answer }

func (r *Refusal) Error() string { return r.Answer.Error }

// Conn is an end of the socket.
type Conn struct {
	*net.UnixConn
	Patience time.Duration // that Ask has for an answer
}

// patience is more than a machine takes that is a thousand times slower than others: nothing is waited for before an
// answer but the process itself.
const patience = 30 * time.Second

// Pair returns a connected pair: an end for this process and one to be inherited. The caller closes both.
func Pair() (Conn, *os.File, error) {
	ours, theirs, err := socketpair.New(unix.SOCK_SEQPACKET, "control")
	if err != nil {
		return Conn{}, nil, fmt.Errorf("making a control socket: %w", err)
	}
	return Conn{ours, patience}, theirs, nil
}

// NewConn takes over an end of the socket.
func NewConn(f *os.File) (Conn, error) {
	defer f.Close() // net.FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return Conn{}, fmt.Errorf("taking over the control socket: %w", err)
	}
	conn, ok := c.(*net.UnixConn)
	if !ok {
		return Conn{}, errors.Join(fmt.Errorf("the control socket is a %T", c), c.Close())
	}
	return Conn{conn, patience}, nil
}

// Ask sends a request with the file, which stays the caller's and may be nil, and waits for its answer. One request
// is asked at a time. An error that is no *Refusal says that nobody is at the other end any more, or somebody who does not
// answer: the connection is of no use then.
func (c Conn) Ask(r Request, f *os.File) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(c.Patience)); err != nil {
		return err
	}
	if err := c.send(data, f); err != nil {
		return err
	}
	var a Answer
	buf := make([]byte, maxMessage)
	n, err := c.Read(buf)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(buf[:n], &a); err != nil {
		return err
	}
	if a.Error != "" {
		return &Refusal{a}
	}
	return nil
}

func (c Conn) send(data []byte, f *os.File) error {
	if f == nil {
		_, err := c.Write(data)
		return err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Control(func(fd uintptr) { _, _, sent = c.WriteMsgUnix(data, unix.UnixRights(int(fd)), nil) })
	return errors.Join(err, sent)
}

// Next waits for a request. The file is the caller's; it is nil for a request that came without.
func (c Conn) Next() (r Request, f *os.File, err error) {
	buf, oob := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil {
		return r, nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return r, nil, err
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return r, nil, err
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			f = os.NewFile(uintptr(fd), "socket")
		}
	}
	if err := json.Unmarshal(buf[:n], &r); err != nil {
		if f != nil {
			f.Close()
		}
		return r, nil, err
	}
	return r, f, nil
}

// Reply answers the last request.
func (c Conn) Reply(err error) error {
	var a Answer
	if err != nil {
		a.Error = err.Error()
	}
	data, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = c.Write(data)
	return err
}
