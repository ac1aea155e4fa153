package debian

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// binfmtDir is where the kernel keeps what it hands foreign programs to.
const binfmtDir = "/proc/sys/fs/binfmt_misc"

// An ELF header of a 64-bit ARM program, little-endian, ET_EXEC or ET_DYN, and
// which of its bits count: the ABI's version does not.
const (
	aarch64Magic = `7f454c460201010000000000000000000200b700`
	aarch64Mask  = `ffffffffffffff00fffffffffffffffffeffffff`
)

// emulator is the program that runs the new system's own programs while its
// packages are configured. It is empty where the machine needs none, because
// the system is for its own processor or because the kernel has been told what
// to do with the other's programs.
func emulator(arch, binfmtDir string) (string, error) {
	host := map[string]string{"amd64": "amd64", "arm64": "arm64"}[runtime.GOARCH]
	if arch == host || (arch == "arm64" && isRegistered(binfmtDir, aarch64Magic)) {
		return "", nil
	}
	if arch != "arm64" {
		return "", fmt.Errorf("an image for %s can be built on %s only, not on %s", arch, arch, runtime.GOARCH)
	}
	for _, name := range []string{"qemu-aarch64-static", "qemu-aarch64"} {
		// Inside the new system there are no libraries for it.
		if path, err := exec.LookPath(name); err == nil && isStatic(path) {
			return filepath.EvalSymlinks(path)
		}
	}
	return "", errors.New("building an image for arm64 on another processor needs QEMU's user-mode emulator, linked statically: on Debian 12 and Ubuntu 24.04 run `sudo apt-get install qemu-user-static`, on Debian 13 `sudo apt-get install qemu-user`, on Fedora `sudo dnf install qemu-user-static-aarch64`")
}

// isRegistered tells whether the kernel hands ELF programs with the given
// header to an emulator that it opened beforehand (flag F): others are not
// found once the root directory has changed.
func isRegistered(dir, magic string) bool {
	entries, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, entry := range entries {
		data, err := os.ReadFile(entry)
		if err != nil {
			continue
		}
		fields := map[string]string{}
		for line := range strings.Lines(string(data)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			fields[strings.TrimSuffix(key, ":")] = value
		}
		_, enabled := fields["enabled"]
		if enabled && fields["magic"] == magic && strings.Contains(fields["flags"], "F") {
			return true
		}
	}
	return false
}

func isStatic(path string) bool {
	f, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return false
		}
	}
	return true
}

// emulatorHook makes the kernel hand ARM programs to the emulator in the user
// namespace that mmdebstrap runs in, and nowhere else on the machine.
func emulatorHook(path string) hook {
	return hook{"setup", fmt.Sprintf(`if ! mount -t binfmt_misc binfmt_misc %s; then
	echo 'This kernel cannot emulate programs for one build only (Linux 6.7 and newer can). Let it do so for the whole machine: on Debian and Ubuntu, install qemu-user-static (Debian 13: qemu-user-binfmt).' >&2
	exit 1
fi
printf '%%s' ':sandbox-aarch64:M::%s:%s:%s:FP' >%s/register`,
		binfmtDir, escapeHex(aarch64Magic), escapeHex(aarch64Mask), path, binfmtDir)}
}

// escapeHex writes each byte as \xHH, the form in which binfmt_misc is told.
func escapeHex(digits string) string {
	var b strings.Builder
	for i := 0; i < len(digits); i += 2 {
		b.WriteString(`\x` + digits[i:i+2])
	}
	return b.String()
}
