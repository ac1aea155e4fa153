//go:build linux

package server

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// environ is the environment of a user's process: what every login gives, and
// then the guest's own settings, of which later ones win over earlier ones.
func environ(user User, runtimeDir string, settings []string) []string {
	env := []string{
		"HOME=" + user.Home,
		"USER=" + user.Name,
		"LOGNAME=" + user.Name,
		"SHELL=" + user.Shell,
		"PATH=" + defaultPath(user),
		"LANG=" + defaultLocale,
	}
	if runtimeDir != "" {
		env = append(env, "XDG_RUNTIME_DIR="+runtimeDir)
		// As pam_systemd(8) has it.
		bus := filepath.Join(runtimeDir, "bus")
		if _, err := os.Stat(bus); err == nil {
			env = append(env, "DBUS_SESSION_BUS_ADDRESS=unix:path="+bus)
		}
	}
	for _, setting := range settings {
		env = setenv(env, setting)
	}
	return env
}

// parseEnvironment reads the text of /etc/environment as pam_env(8) does, and
// with it every login of other systems: so what an image sets there reaches
// every command, whatever its shell, and without one.
func parseEnvironment(text string) []string {
	var settings []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimPrefix(strings.TrimSpace(line), "export ")
		name, value, ok := strings.Cut(line, "=")
		name = strings.TrimSpace(name)
		if !ok || name == "" {
			continue
		}
		value = strings.TrimSpace(value)
		for _, quote := range []string{`"`, "'"} {
			if len(value) >= 2 && strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
				value = value[1 : len(value)-1]
				break
			}
		}
		settings = append(settings, name+"="+value)
	}
	return settings
}

// defaultPath is where programs are looked for. NixOS has its own places.
func defaultPath(user User) string {
	dirs := []string{filepath.Join(user.Home, ".local/bin")}
	if _, err := os.Stat("/run/current-system/sw/bin"); err == nil {
		dirs = append(dirs, "/run/wrappers/bin",
			filepath.Join("/etc/profiles/per-user", user.Name, "bin"),
			"/run/current-system/sw/bin")
	}
	dirs = append(dirs, "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
	return strings.Join(dirs, ":")
}

// setenv puts "NAME=VALUE" in the place of an earlier setting of the name.
func setenv(env []string, setting string) []string {
	name, _, ok := strings.Cut(setting, "=")
	if !ok || name == "" {
		return env
	}
	for i, existing := range env {
		if strings.HasPrefix(existing, name+"=") {
			env[i] = setting
			return env
		}
	}
	return append(env, setting)
}

// getenv returns the value of a name, or an empty string.
func getenv(env []string, name string) string {
	for _, setting := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(setting, name+"="); ok {
			return value
		}
	}
	return ""
}

// runtimeDir returns the user's runtime directory if there is one.
func runtimeDir(user User) string {
	dir := filepath.Join("/run/user", strconv.Itoa(user.UID))
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

// mayUse reports whether the user has execute permission, which for a
// directory is the permission to enter it. It looks at the mode only; the
// kernel has the last word.
func mayUse(user User, info fs.FileInfo) bool {
	mode := info.Mode().Perm()
	stat, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok:
		return mode&0o111 != 0
	case user.UID == 0:
		return info.IsDir() || mode&0o111 != 0
	case int(stat.Uid) == user.UID:
		return mode&0o100 != 0
	case int(stat.Gid) == user.GID || slices.Contains(user.Groups, int(stat.Gid)):
		return mode&0o010 != 0
	default:
		return mode&0o001 != 0
	}
}
