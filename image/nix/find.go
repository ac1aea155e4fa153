package nix

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// find looks for Nix where a shell would, and where its installers put it: a
// shell that was open before knows nothing of that yet.
func find() (string, error) {
	if path, err := exec.LookPath("nix"); err == nil {
		return path, nil
	}
	dirs := []string{"/nix/var/nix/profiles/default/bin", "/run/current-system/sw/bin"}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, filepath.Join(home, ".nix-profile/bin"))
	}
	for _, dir := range dirs {
		if path, err := exec.LookPath(filepath.Join(dir, "nix")); err == nil {
			return path, nil
		}
	}
	return "", remedy.Add(errors.New("building an image from a flake needs Nix, which is not installed: https://nixos.org/download tells how to get it "+
		"(on Debian and Ubuntu also `sudo apt-get install nix-setup-systemd`)"), remedy.BuildRecipe)
}
