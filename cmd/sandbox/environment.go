package main

import (
	"errors"
	"os"
	osuser "os/user"
)

// executePath is where execvp(3) looks for programs when PATH is not set, and
// where distributions put the tools of administrators.
const executePath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// completeEnvironment sets what a login would have set. A service manager or
// env -i starts programs without.
func completeEnvironment() {
	if os.Getenv("HOME") == "" {
		// Where nobody knows the home, only what needs one fails.
		if current, err := osuser.Current(); err == nil && current.HomeDir != "" {
			os.Setenv("HOME", current.HomeDir)
		}
	}
	if os.Getenv("PATH") == "" {
		os.Setenv("PATH", executePath)
	}
}

// explain replaces an error of the system that does not say what to do.
func explain(err error) error {
	if call, ok := errors.AsType[*os.SyscallError](err); ok && call.Syscall == "getwd" {
		return errors.New("the current directory was removed, or cannot be reached any more: change to another one, such as with cd")
	}
	return err
}
