// Command mkimage is the builder of the flake beside it, and all that its image
// has besides the agent: the names that it has in the guest say what it does.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

func main() {
	var err error
	switch name := filepath.Base(os.Args[0]); {
	case os.Getenv("out") != "":
		err = build(environment())
	case name == "init":
		reap()
	case name == "answer":
		err = answer()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// reap is process 1 of the guest. The agent powers the guest off.
func reap() {
	for {
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(-1, &status, 0, nil); err == syscall.ECHILD {
			// Nothing to wait for until an orphan is given to it.
			_ = syscall.Pause()
		}
	}
}

// answer tells who answers, and repeats the files that it is given.
func answer() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Printf("uid %d on %s\n", os.Getuid(), host)
	for _, file := range os.Args[1:] {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", file, strings.TrimSpace(string(data)))
	}
	return nil
}
