package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/internal/confine"
)

// minVersion is the oldest QEMU that Args is tested for: Debian 12's.
var minVersion = Version{Major: 7, Minor: 2}

// probeTimeout bounds one question to QEMU, which takes some 30 ms, and more than ten seconds inside of an
// emulated guest: a binary that is no QEMU may wait for input for ever.
const probeTimeout = 2 * time.Minute

// Version is QEMU's release number.
type Version struct{ Major, Minor, Micro int }

// String returns the version as QEMU prints it.
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// AtLeast reports whether v is the release major.minor or a later one.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// Capabilities is what a QEMU binary can do. It can be stored as JSON.
type Capabilities struct {
	Binary   string // path
	Version  Version
	Accels   []Accel
	Machines []string // machine types, with aliases
	Devices  []string // device models, with aliases
	Options  []string // command-line options without the leading '-'
	Data     []string // directories with firmware
	QBoot    string   // path of the firmware of the machine type microvm; empty if it is not installed

	// Parts are what the binary is made of. They are absent if it is none that could be confined.
	Parts confine.Parts
}

// Find returns the path of the QEMU that emulates arch. The error names the package to install.
func Find(arch Arch) (string, error) {
	names := []string{"qemu-system-" + string(arch)}
	if arch == HostArch() {
		names = append(names, "/usr/libexec/qemu-kvm") // its only name on RHEL and its kin
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return filepath.Abs(path)
		}
	}
	return "", fmt.Errorf("%s is not installed (not in $PATH): install the package %s", names[0], packages(arch))
}

func packages(arch Arch) string {
	if arch == AArch64 {
		return "qemu-system-arm (Debian, Ubuntu) or qemu-system-aarch64-core (Fedora)"
	}
	return "qemu-system-x86 (Debian, Ubuntu) or qemu-system-x86-core (Fedora)"
}

// Probe asks a QEMU binary what it can do. The answer is kept in cacheDir (made if absent; none if
// empty) until the binary changes.
func Probe(ctx context.Context, binary, cacheDir string) (Capabilities, error) {
	id, err := identify(binary)
	if err != nil {
		return Capabilities{}, err
	}
	store := cache{dir: cacheDir}
	var caps Capabilities
	if !store.load("qemu", id, &caps) {
		if caps, err = interrogate(ctx, binary); err != nil {
			return Capabilities{}, err
		}
		store.save("qemu", id, caps)
	}
	caps.QBoot = findQBoot(caps.Data) // a file of its own, which comes and goes without a change of the binary
	return caps, nil
}

func findQBoot(dirs []string) string {
	for _, dir := range dirs {
		path := filepath.Join(dir, "qboot.rom")
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// CheckFirmware returns an error with the remedy if the binary has the machine type microvm without the firmware that it
// needs. ChooseMachine then passes over it, so a caller may want to say why guests start more slowly.
func (c Capabilities) CheckFirmware() error {
	if c.QBoot == "" && slices.Contains(c.Machines, string(MachineMicroVM)) {
		return fmt.Errorf("%s has no firmware qboot.rom, which the machine type %q needs: install the package qemu-system-data (Debian, Ubuntu) or qboot (Fedora)",
			c.Binary, MachineMicroVM)
	}
	return nil
}

func interrogate(ctx context.Context, binary string) (Capabilities, error) {
	caps := Capabilities{Binary: binary}
	out, err := ask(ctx, binary, "-version")
	if err != nil {
		return caps, err
	}
	if caps.Version, err = parseVersion(out); err != nil {
		return caps, fmt.Errorf("%s is not QEMU: %w", binary, err)
	}
	if !caps.Version.AtLeast(minVersion.Major, minVersion.Minor) {
		return caps, fmt.Errorf("%s is QEMU %s, and at least %d.%d is needed: install a newer one (on Debian 12 the backports have 10.0)",
			binary, caps.Version, minVersion.Major, minVersion.Minor)
	}
	for _, q := range []struct {
		args  []string
		parse func(string)
	}{
		{[]string{"-accel", "help"}, func(s string) { caps.Accels = parseAccels(s) }},
		{[]string{"-machine", "help"}, func(s string) { caps.Machines = parseMachines(s) }},
		{[]string{"-device", "help"}, func(s string) { caps.Devices = parseDevices(s) }},
		{[]string{"-help"}, func(s string) { caps.Options = parseOptions(s) }},
		{[]string{"-L", "help"}, func(s string) { caps.Data = strings.Fields(s) }},
	} {
		out, err := ask(ctx, binary, q.args...)
		if err != nil {
			return caps, err
		}
		q.parse(out)
	}
	if parts, err := confine.FindParts(ctx, binary); err == nil { // else Start says what is wrong
		caps.Parts = parts
	}
	return caps, nil
}

// ask runs the binary and returns its standard output.
func ask(ctx context.Context, binary string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env = environment()
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case err == nil:
		return string(out), nil
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("%s is not executable: chmod +x it, or name another QEMU", binary)
	case ctx.Err() != nil:
		return "", fmt.Errorf("%s %s gave no answer: %w", binary, strings.Join(args, " "), ctx.Err())
	}
	return "", fmt.Errorf("%s %s failed, so it is not a QEMU that can be used: %w: %s",
		binary, strings.Join(args, " "), err, bytes.TrimSpace(stderr.Bytes()))
}

func parseVersion(out string) (Version, error) {
	m := regexp.MustCompile(`^QEMU emulator version (\d+)\.(\d+)(?:\.(\d+))?`).FindStringSubmatch(out)
	if m == nil {
		first, _, _ := strings.Cut(strings.TrimSpace(out), "\n")
		return Version{}, fmt.Errorf("-version prints %q", first)
	}
	var n [3]int
	for i, s := range m[1:] {
		if s == "" {
			continue
		}
		var err error
		if n[i], err = strconv.Atoi(s); err != nil {
			return Version{}, fmt.Errorf("-version prints an absurd number: %w", err)
		}
	}
	return Version{n[0], n[1], n[2]}, nil
}

// parseAccels reads "Accelerators supported in QEMU binary:" and a name a line.
func parseAccels(out string) (list []Accel) {
	for line := range strings.Lines(out) {
		if name := strings.TrimSpace(line); name != "" && !strings.Contains(name, " ") {
			list = append(list, Accel(name))
		}
	}
	return list
}

// parseMachines reads "name   description" lines below one heading.
func parseMachines(out string) (list []string) {
	for line := range strings.Lines(out) {
		if name, _, ok := strings.Cut(line, " "); ok && !strings.HasPrefix(line, "Supported machines") {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// parseDevices reads lines such as: name "virtio-rng-pci", bus PCI, alias "virtio-rng".
func parseDevices(out string) (list []string) {
	for _, m := range regexp.MustCompile(`(?:^|\n|, )(?:name|alias) "([^"]+)"`).FindAllStringSubmatch(out, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// parseOptions reads the lines of -help that begin with an option.
func parseOptions(out string) (list []string) {
	for _, m := range regexp.MustCompile(`(?m)^-([a-z0-9][A-Za-z0-9-]*)`).FindAllStringSubmatch(out, -1) {
		list = append(list, m[1])
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// identify names a file by what changes when another one takes its place.
func identify(binary string) (string, error) {
	info, err := os.Stat(binary)
	if err != nil {
		return "", fmt.Errorf("looking at the QEMU binary: %w", err)
	}
	if info.IsDir() {
		return "", fmt.Errorf("%s is a directory and not a QEMU binary", binary)
	}
	return fmt.Sprintf("%s %d %d %d", binary, info.Size(), info.ModTime().UnixNano(), inode(info)), nil
}
