package main

import (
	"fmt"
	"os"
	"os/exec"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// noteClones tells how what the guest commits in its clones gets here, and of what it does not have.
func noteClones(c *cli.Context, config machine.Config) {
	cwd, _ := os.Getwd()
	for _, spec := range c.StringSlice("share") {
		share, err := virtiofs.ParseShare(spec, cwd)
		if err == nil && share.Clone != "" && machine.HasUncommitted(c.Context, share.Source) {
			fmt.Fprintf(notes(), "sandbox: note: what is not committed in %s is not in the guest's clone\n", share.Source)
		}
	}
	for _, share := range config.Shares {
		if share.Clone == "" {
			continue
		}
		fmt.Fprintf(notes(), "sandbox: note: git fetch sandbox::%s gets what the guest commits in its clone of %s\n", config.Name, share.Source)
		if _, err := exec.LookPath(remoteHelper); err != nil {
			fmt.Fprintf(notes(), "sandbox: note: for that, git needs this program by the name %s in your PATH: ln -s \"$(command -v sandbox)\" ~/.local/bin/%[1]s\n", remoteHelper)
		}
		return
	}
}
