//go:build linux

package guest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/agent/server"
	"golang.org/x/crypto/ssh"
)

// ImageConfig is /guest.json of the initrd: what the guest program has to know
// about its image.
type ImageConfig struct {
	Store Store `json:"store"`
	// Init is the image's own init, as a path in the new root.
	Init      string    `json:"init"`
	User      ImageUser `json:"user"`
	Readiness Readiness `json:"readiness"`
	// Prepare is a program, as a path in the new root, that completes the root
	// before any command runs; empty means that it is complete.
	Prepare string `json:"prepare,omitempty"`
	// Await are paths, of the image's own root once its init runs, without which
	// commands would find less than they need: they wait for them, for a while.
	// Of a socket it means that somebody listens.
	Await []string `json:"await,omitempty"`
	// ListenSSH is the TCP port on which the agent answers ssh; 0 is none.
	ListenSSH int `json:"listenSSH,omitempty"`
	// OpenSSH tells that the image's own OpenSSH answers ssh, with the keys
	// that the agent writes down.
	OpenSSH bool `json:"openSSH,omitempty"`
}

// Store is the read-only file system of the image.
type Store struct {
	Format string `json:"format"` // the kernel's name of it, such as "erofs"
	Device string `json:"device"`
}

// ImageUser is the user that commands run as unless they name another.
type ImageUser struct {
	Name  string `json:"name"`
	UID   int    `json:"uid"`
	GID   int    `json:"gid"`
	Home  string `json:"home"`
	Shell string `json:"shell"`
}

// account is the user as one that processes are started for.
func (u ImageUser) account() server.User {
	return server.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Shell: u.Shell}
}

// Readiness says who knows when the image's system is up.
type Readiness struct {
	// System is "systemd", or empty if the image has no word of its own; then
	// the system is ready when the agent is.
	System string `json:"system,omitempty"`
}

// ParseImageConfig reads /guest.json. Unknown fields are an error: an older
// guest program must not ignore what a newer image asks for.
func ParseImageConfig(data []byte) (ImageConfig, error) {
	var c ImageConfig
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return ImageConfig{}, fmt.Errorf("guest.json cannot be read: %w", err)
	}
	for _, required := range []struct{ field, path string }{
		{"store.device", c.Store.Device},
		{"init", c.Init},
		{"user.home", c.User.Home},
		{"user.shell", c.User.Shell},
	} {
		if !filepath.IsAbs(required.path) {
			return ImageConfig{}, fmt.Errorf("guest.json: %s is %q and must be an absolute path", required.field, required.path)
		}
	}
	if c.Store.Format == "" || c.User.Name == "" {
		return ImageConfig{}, errors.New("guest.json: store.format and user.name must be given")
	}
	if c.Prepare != "" && !filepath.IsAbs(c.Prepare) {
		return ImageConfig{}, fmt.Errorf("guest.json: prepare is %q and must be an absolute path", c.Prepare)
	}
	for _, path := range c.Await {
		if !filepath.IsAbs(path) {
			return ImageConfig{}, fmt.Errorf("guest.json: await has %q, which must be an absolute path", path)
		}
	}
	if c.OpenSSH && c.ListenSSH != 0 {
		return ImageConfig{}, errors.New("guest.json: listenSSH and openSSH exclude each other: one of them answers ssh")
	}
	if c.Readiness.System != "" && c.Readiness.System != "systemd" {
		return ImageConfig{}, fmt.Errorf("guest.json: readiness.system is %q; this agent knows \"systemd\" only", c.Readiness.System)
	}
	return c, nil
}

// BootParams are what the host says on the kernel's command line.
type BootParams struct {
	// Key is the only one that the agent's channel admits.
	Key ssh.PublicKey
	// VsockPort is the port to listen on; 0 means the virtio-serial port.
	VsockPort uint32
	// DiskSerial is the serial number of the drive that keeps what is written
	// outside home and shares; empty means that this is kept in memory.
	DiskSerial string
}

// ParseBootParams reads the kernel's command line.
func ParseBootParams(cmdline string) (BootParams, error) {
	var p BootParams
	transport := ""
	for word := range strings.FieldsSeq(cmdline) {
		name, value, _ := strings.Cut(word, "=")
		switch name {
		case "sandbox.key":
			wire, err := base64.RawStdEncoding.DecodeString(value)
			if err != nil {
				return BootParams{}, fmt.Errorf("kernel command line: sandbox.key is not base64: %w", err)
			}
			if p.Key, err = ssh.ParsePublicKey(wire); err != nil {
				return BootParams{}, fmt.Errorf("kernel command line: sandbox.key is no SSH public key: %w", err)
			}
		case "sandbox.transport":
			transport = value
		case "sandbox.disk":
			p.DiskSerial = value
		}
	}
	if p.Key == nil {
		return BootParams{}, errors.New("kernel command line: sandbox.key is missing, so nobody could log in to the agent")
	}
	switch kind, port, _ := strings.Cut(transport, ":"); kind {
	case "serial":
	case "vsock":
		number, err := strconv.ParseUint(port, 10, 32)
		if err != nil || number == 0 {
			return BootParams{}, fmt.Errorf("kernel command line: sandbox.transport=%s has no valid vsock port", transport)
		}
		p.VsockPort = uint32(number)
	default:
		return BootParams{}, fmt.Errorf("kernel command line: sandbox.transport is %q and must be \"serial\" or \"vsock:PORT\"", transport)
	}
	return p, nil
}

func readBootParams() (BootParams, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return BootParams{}, fmt.Errorf("cannot read the kernel's command line: %w", err)
	}
	return ParseBootParams(string(cmdline))
}

func readImageConfig() (ImageConfig, error) {
	data, err := os.ReadFile("/guest.json")
	if err != nil {
		return ImageConfig{}, fmt.Errorf("the initrd lacks its description: %w", err)
	}
	return ParseImageConfig(data)
}
