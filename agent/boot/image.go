package boot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
)

// ImageFile is where the initrd has an [Image] for its agent.
const ImageFile = "guest.json"

// Image is /guest.json of the initrd: what an agent has to know about its image.
// The maker of an image writes it with encoding/json.
type Image struct {
	Store Store `json:"store"`
	// Init is the image's own init, as a path in the new root.
	Init      string    `json:"init"`
	User      User      `json:"user"`
	Readiness Readiness `json:"readiness"`
	Setup
}

// Setup is the part that concerns the agent alone: nothing on the host reads it.
type Setup struct {
	// Prepare is a program, as a path in the new root, that completes the root
	// before any command runs; empty means that it is complete.
	Prepare string `json:"prepare,omitempty"`
	// Listen are unix sockets, as paths in the new root, of daemons that commands
	// need and that systemd starts when somebody connects. They are listened on
	// from before systemd's start on, so that a command need not wait for that,
	// but only for the daemon.
	Listen []string `json:"listen,omitempty"`
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

// User is the user that commands run as unless they name another.
type User struct {
	Name  string `json:"name"`
	UID   int    `json:"uid"`
	GID   int    `json:"gid"`
	Home  string `json:"home"`
	Shell string `json:"shell"`
}

// Readiness says who knows when the image's system is up.
type Readiness struct {
	// System is "systemd", or empty if the image has no word of its own; then
	// the system is ready when the agent is.
	System string `json:"system,omitempty"`
}

// ParseImage reads /guest.json. Unknown fields are an error: an older
// agent must not ignore what a newer image asks for.
func ParseImage(data []byte) (Image, error) {
	var c Image
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&c); err != nil {
		return Image{}, fmt.Errorf("guest.json cannot be read: %w", err)
	}
	for _, required := range []struct{ field, path string }{
		{"store.device", c.Store.Device},
		{"init", c.Init},
		{"user.home", c.User.Home},
		{"user.shell", c.User.Shell},
	} {
		if !filepath.IsAbs(required.path) {
			return Image{}, fmt.Errorf("guest.json: %s is %q and must be an absolute path", required.field, required.path)
		}
	}
	if c.Store.Format == "" || c.User.Name == "" {
		return Image{}, errors.New("guest.json: store.format and user.name must be given")
	}
	if c.Prepare != "" && !filepath.IsAbs(c.Prepare) {
		return Image{}, fmt.Errorf("guest.json: prepare is %q and must be an absolute path", c.Prepare)
	}
	for _, path := range c.Listen {
		if !filepath.IsAbs(path) {
			return Image{}, fmt.Errorf("guest.json: listen has %q, which must be an absolute path", path)
		}
	}
	if c.OpenSSH && c.ListenSSH != 0 {
		return Image{}, errors.New("guest.json: listenSSH and openSSH exclude each other: one of them answers ssh")
	}
	if c.Readiness.System != "" && c.Readiness.System != "systemd" {
		return Image{}, fmt.Errorf("guest.json: readiness.system is %q; this agent knows \"systemd\" only", c.Readiness.System)
	}
	return c, nil
}
