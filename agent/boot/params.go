package boot

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// Prefix begins each of the words that are for the host to say: no image has one
// in its own part of the command line.
const Prefix = "sandbox."

// The words.
const (
	wordKey       = Prefix + "key"
	wordTransport = Prefix + "transport"
	wordDisk      = Prefix + "disk"
)

// Transports, as the words have them.
const (
	serial = "serial"
	vsock  = "vsock" // :PORT
)

// Params are what the host says on the kernel's command line.
type Params struct {
	// Key is the only one that the agent's channel admits. It is never nil.
	Key ssh.PublicKey
	// VsockPort is the port to listen on; 0 means the virtio-serial port.
	VsockPort uint32
	// DiskSerial is the serial number of the drive that keeps what is written
	// outside home and shares; empty means that this is kept in memory.
	DiskSerial string
}

// Words are what the host adds to the image's own words.
func (p Params) Words() []string {
	transport := serial
	if p.VsockPort != 0 {
		transport = fmt.Sprintf("%s:%d", vsock, p.VsockPort)
	}
	words := []string{
		wordKey + "=" + base64.RawStdEncoding.EncodeToString(p.Key.Marshal()),
		wordTransport + "=" + transport,
	}
	if p.DiskSerial != "" {
		words = append(words, wordDisk+"="+p.DiskSerial)
	}
	return words
}

// ParseParams reads the kernel's command line, with the words of others in it.
func ParseParams(cmdline string) (Params, error) {
	var p Params
	transport := ""
	for word := range strings.FieldsSeq(cmdline) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case wordKey:
			wire, err := base64.RawStdEncoding.DecodeString(value)
			if err != nil {
				return Params{}, fmt.Errorf("kernel command line: sandbox.key is not base64: %w", err)
			}
			if p.Key, err = ssh.ParsePublicKey(wire); err != nil {
				return Params{}, fmt.Errorf("kernel command line: sandbox.key is no SSH public key: %w", err)
			}
		case wordTransport:
			transport = value
		case wordDisk:
			p.DiskSerial = value
		}
	}
	if p.Key == nil {
		return Params{}, errors.New("kernel command line: sandbox.key is missing, so nobody could log in to the agent")
	}
	switch kind, port, _ := strings.Cut(transport, ":"); kind {
	case serial:
	case vsock:
		number, err := strconv.ParseUint(port, 10, 32)
		if err != nil || number == 0 {
			return Params{}, fmt.Errorf("kernel command line: sandbox.transport=%s has no valid vsock port", transport)
		}
		p.VsockPort = uint32(number)
	default:
		return Params{}, fmt.Errorf("kernel command line: sandbox.transport is %q and must be \"serial\" or \"vsock:PORT\"", transport)
	}
	return p, nil
}
