package virtiofs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// program is the name of virtiofsd in every distribution.
const program = "virtiofsd"

// Directories outside of $PATH where virtiofsd is found. The first is where this project's set-up puts it on
// distributions that have none, or one that is too old.
var libexec = []string{
	"/usr/local/libexec/sandbox",
	"/usr/local/libexec",
	"/usr/libexec",     // Debian, Ubuntu, Fedora
	"/usr/lib",         // Arch
	"/usr/lib/qemu",    // Debian 12 (the C program, to be named in the error)
	"/usr/lib/kvm",     // openSUSE
	"/usr/libexec/kvm", // RHEL
}

// oldest is the first version that translates user ids by itself (--translate-uid), on which everything
// that the package promises about owners rests.
var oldest = [2]int{1, 13}

// versionDeadline bounds virtiofsd --version, which takes milliseconds, and seconds inside of an emulated
// guest.
const versionDeadline = time.Minute

// Daemon is an installed virtiofsd that this package can run.
type Daemon struct {
	Path    string `json:"path"`    // of the program
	Version string `json:"version"` // such as "1.13.2"
}

// Find looks for virtiofsd in $PATH and in the directories where distributions keep it, and returns the first
// that is good enough: the one written in Rust, version 1.13 or newer. The error tells what was found instead
// and how to install one.
func Find(ctx context.Context) (Daemon, error) {
	return find(ctx, append(filepath.SplitList(os.Getenv("PATH")), libexec...))
}

func find(ctx context.Context, dirs []string) (Daemon, error) {
	const remedy = "install version 1.13 or newer: make setup in this project's source does so, " +
		"as does apt install virtiofsd on Debian 13 or dnf install virtiofsd on Fedora"
	var refused []string
	seen := map[string]bool{}
	for _, dir := range dirs {
		name := filepath.Join(dir, program)
		if seen[name] || !executable(name) {
			continue
		}
		seen[name] = true
		version, err := probeVersion(ctx, name)
		if err == nil {
			return Daemon{Path: name, Version: version}, nil
		}
		if ctx.Err() != nil {
			return Daemon{}, fmt.Errorf("looking for virtiofsd: %w", ctx.Err())
		}
		refused = append(refused, fmt.Sprintf("%s %v", name, err))
	}
	if len(refused) > 0 {
		return Daemon{}, fmt.Errorf("no usable virtiofsd, the program that shares directories with the guest: %s; %s", strings.Join(refused, "; "), remedy)
	}
	return Daemon{}, fmt.Errorf("virtiofsd, the program that shares directories with the guest, is not installed; %s", remedy)
}

// executable refuses relative names too: a directory such as "." in $PATH must not choose a program.
func executable(name string) bool {
	if !filepath.IsAbs(name) {
		return false
	}
	_, err := exec.LookPath(name)
	return err == nil
}

// probeVersion asks the program for its version. Its errors continue a sentence that begins with its path.
func probeVersion(ctx context.Context, name string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionDeadline)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, "--version")
	cmd.Env = []string{} // as in Start
	cmd.WaitDelay = time.Second
	output, err := cmd.CombinedOutput()
	if err != nil {
		var exit *exec.ExitError
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return "", errors.New("does not run, because its interpreter or dynamic loader is missing")
		case errors.As(err, &exit) && len(output) > 0:
			return "", fmt.Errorf("does not run (%w: %s)", err, firstLine(output))
		}
		return "", fmt.Errorf("does not run (%w)", err)
	}
	return parseVersion(string(output))
}

var (
	rustVersion = regexp.MustCompile(`^virtiofsd (?:backend )?v?((\d+)\.(\d+)(?:\.\d+)?)`)
	// The C program says "virtiofsd version 7.2.22 (Debian …)", and names FUSE.
	cVersion = regexp.MustCompile(`(?i)virtiofsd version|using FUSE`)
)

func parseVersion(output string) (string, error) {
	match := rustVersion.FindStringSubmatch(output)
	if match == nil {
		if cVersion.MatchString(output) {
			return "", errors.New("is the old one written in C that came with QEMU before 8.0, which cannot run without root or translate user ids")
		}
		return "", fmt.Errorf("states no version (%q)", firstLine([]byte(output)))
	}
	major, _ := strconv.Atoi(match[2])
	minor, _ := strconv.Atoi(match[3])
	if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		return "", fmt.Errorf("is version %s, which cannot translate user ids", match[1])
	}
	return match[1], nil
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
	return line
}
