package image

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/agent/boot"
)

// Version is the version of the manifest that this package reads and writes.
const Version = 1

// ManifestFile is the name of the manifest in the image's directory.
const ManifestFile = "manifest.json"

// Schema is the JSON Schema of the manifest.
//
//go:embed manifest.schema.json
var Schema []byte

// Manifest describes an image. It differs between two images exactly if their
// files or their meaning differ, so its digest names the image.
type Manifest struct {
	Version    int        `json:"version"`
	Name       string     `json:"name"`
	System     string     `json:"system"` // such as x86_64-linux
	Kernel     File       `json:"kernel"`
	Initrd     File       `json:"initrd"`
	Store      StoreFile  `json:"store"`
	Cmdline    []string   `json:"cmdline"` // of the kernel, one word each
	Init       string     `json:"init"`    // what the agent starts as the system, a path in the guest
	User       User       `json:"user"`
	Defaults   Defaults   `json:"defaults"`
	Agent      Agent      `json:"agent"`
	Readiness  Readiness  `json:"readiness"`
	Requires   []string   `json:"requires,omitempty"` // features of the machine, of Features
	Provenance Provenance `json:"provenance"`
}

// File is one file of an image.
type File struct {
	File   string `json:"file"`   // relative to the manifest
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hexadecimal
}

// StoreFile is the read-only file system of an image.
type StoreFile struct {
	File
	Format string `json:"format"`          // as mount -t names it
	Label  string `json:"label,omitempty"` // volume label
	Mount  string `json:"mount"`           // where the guest sees it
}

// User is whom commands run as in the guest.
type User struct {
	Name  string `json:"name"`
	UID   int    `json:"uid"`
	GID   int    `json:"gid"`
	Home  string `json:"home"`
	Shell string `json:"shell"`
}

// Defaults are for sandboxes that do not say otherwise. Zero means that the
// image has no opinion.
type Defaults struct {
	MemoryMiB int `json:"memoryMiB,omitempty"`
	CPUs      int `json:"cpus,omitempty"`
}

// Agent says where the guest's agent can be reached.
type Agent struct {
	Port uint32 `json:"port"` // on vsock
}

// Readiness says what "system" readiness means for the image.
type Readiness struct {
	// System is "systemd", or empty if the image has no word of its own; then
	// the system is ready when the agent is.
	System string `json:"system,omitempty"`
}

// Provenance says where an image came from.
type Provenance struct {
	Builder string `json:"builder"` // such as "debian" or "nix"
	// Built is the time that the build is stamped with. Reproducible builders
	// derive it from their inputs, not from the clock.
	Built    time.Time `json:"built"`
	Inputs   string    `json:"inputs,omitempty"` // digest of what was asked for
	AgentSHA string    `json:"agentSHA256,omitempty"`
	Flake    string    `json:"flake,omitempty"`
	Revision string    `json:"revision,omitempty"`
	Packages []Package `json:"packages,omitempty"`
}

// Package is one package in an image.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Size    int64  `json:"size,omitempty"` // bytes installed, if known
}

// Features are the features of a machine that a manifest may require, and
// which every sandbox has.
func Features() []string { return []string{"virtio-blk", "virtio-net", "virtiofs"} }

// Parse reads a manifest strictly: what it does not know is an error, because
// ignoring it could mean to run an image in another way than its maker meant.
func Parse(data []byte) (Manifest, error) {
	// The version comes first: other versions may look different altogether.
	var v struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return Manifest{}, fmt.Errorf("the manifest is not valid JSON: %w", err)
	}
	switch {
	case v.Version == nil:
		return Manifest{}, errors.New("the manifest has no version")
	case *v.Version != Version:
		return Manifest{}, fmt.Errorf("the manifest has version %d, and this program reads version %d: build the image again, or use the program that made it", *v.Version, Version)
	}
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("the manifest cannot be understood: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Manifest{}, errors.New("the manifest has something after its end")
	}
	if err := m.Validate(); err != nil {
		return Manifest{}, fmt.Errorf("the manifest is wrong: %w", err)
	}
	return m, nil
}

// Encode gives the manifest's file content. Equal manifests give equal bytes.
func (m Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(m, "", "  ")
	return append(data, '\n'), err
}

// Validate finds the first thing that is wrong with m in itself. It does not
// look at files.
func (m Manifest) Validate() error {
	if m.Version != Version {
		return fmt.Errorf("its version is %d instead of %d", m.Version, Version)
	}
	if err := CheckName(m.Name); err != nil {
		return err
	}
	if m.System != "x86_64-linux" && m.System != "aarch64-linux" {
		return fmt.Errorf("system %q is neither x86_64-linux nor aarch64-linux", m.System)
	}
	seen := map[string]bool{ManifestFile: true}
	for _, f := range m.files() {
		if err := f.File.validate(); err != nil {
			return fmt.Errorf("%s: %w", f.role, err)
		}
		if seen[f.File.File] {
			return fmt.Errorf("%s: the file %q has another role already", f.role, f.File.File)
		}
		seen[f.File.File] = true
	}
	if m.Store.Format != "erofs" {
		return fmt.Errorf("store: the format %q is unknown; only erofs is known", m.Store.Format)
	}
	for _, p := range []struct{ field, path string }{
		{"store.mount", m.Store.Mount},
		{"init", m.Init},
		{"user.home", m.User.Home},
		{"user.shell", m.User.Shell},
	} {
		if !path.IsAbs(p.path) || path.Clean(p.path) != p.path {
			return fmt.Errorf("%s is %q, which is not a plain absolute path", p.field, p.path)
		}
	}
	return m.validateGuest()
}

func (m Manifest) validateGuest() error {
	if !namePattern.MatchString(m.User.Name) || m.User.UID < 1 || m.User.GID < 1 {
		return fmt.Errorf("user %q with uid %d and gid %d is not an ordinary user", m.User.Name, m.User.UID, m.User.GID)
	}
	for _, word := range m.Cmdline {
		if word == "" || strings.ContainsAny(word, " \t\n\x00") {
			return fmt.Errorf("cmdline: %q is not one word", word)
		}
		if strings.HasPrefix(word, boot.Prefix) {
			return fmt.Errorf("cmdline: %q is for the host to say, not for an image", word)
		}
	}
	if m.Defaults.MemoryMiB < 0 || m.Defaults.CPUs < 0 {
		return errors.New("defaults must not be negative")
	}
	if m.Agent.Port == 0 {
		return errors.New("agent.port is missing")
	}
	if s := m.Readiness.System; s != "" && s != "systemd" {
		return fmt.Errorf("readiness.system is %q; only systemd is known", s)
	}
	for _, f := range m.Requires {
		if !slices.Contains(Features(), f) {
			return fmt.Errorf("it requires the machine feature %q, which this program does not have", f)
		}
	}
	if m.Provenance.Builder == "" {
		return errors.New("provenance.builder is missing")
	}
	return nil
}

// roleFile is a file with what it is for, for messages.
type roleFile struct {
	role string
	File
}

func (m Manifest) files() []roleFile {
	return []roleFile{{"kernel", m.Kernel}, {"initrd", m.Initrd}, {"store", m.Store.File}}
}

var (
	namePattern   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)
	digestPattern = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// CheckName tells whether an image can be called name.
func CheckName(name string) error {
	if !namePattern.MatchString(name) {
		return fmt.Errorf("%q is not a name for an image: use up to 63 lower-case letters, digits, dots, dashes and underscores, starting with a letter or digit", name)
	}
	return nil
}

func (f File) validate() error {
	if f.File == "" {
		return errors.New("the file is missing")
	}
	if !filepath.IsLocal(f.File) || filepath.Clean(f.File) != f.File {
		return fmt.Errorf("the path %q leads out of the image's directory", f.File)
	}
	if f.Size <= 0 {
		return fmt.Errorf("the size of %s is %d bytes", f.File, f.Size)
	}
	if !digestPattern.MatchString(f.SHA256) {
		return fmt.Errorf("the sha256 of %s is %q, which is not one", f.File, f.SHA256)
	}
	return nil
}
