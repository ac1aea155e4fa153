package supervisor

import (
	"fmt"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/qmp"
)

func allowHarmless(command string) error {
	if reason := qmp.Risk(command); reason != "" {
		return remedy.Add(fmt.Errorf("%s %s", command, reason), remedy.AllowUnsafe)
	}
	return nil
}

// logDangerous allows everything, and keeps what may explain the end of the sandbox.
func (v *supervisor) logDangerous(command string) error {
	if qmp.Risk(command) != "" {
		v.log.Warn("a dangerous QMP command was given", "command", command)
	}
	return nil
}
