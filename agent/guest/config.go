//go:build linux

package guest

import (
	"fmt"
	"os"

	"github.com/sourcery-zone/sandbox/agent/boot"
	"github.com/sourcery-zone/sandbox/agent/server"
)

func readParams() (boot.Params, error) {
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return boot.Params{}, fmt.Errorf("cannot read the kernel's command line: %w", err)
	}
	return boot.ParseParams(string(cmdline))
}

func readImage() (boot.Image, error) {
	data, err := os.ReadFile("/" + boot.ImageFile)
	if err != nil {
		return boot.Image{}, fmt.Errorf("the initrd lacks its description: %w", err)
	}
	return boot.ParseImage(data)
}

// account is the image's user as one that processes are started for.
func account(u boot.User) server.User {
	return server.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Shell: u.Shell}
}
