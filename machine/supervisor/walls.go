package supervisor

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/machine"
)

// explainWeak adds to a start that was refused how to have it all the same.
func explainWeak(err error) error {
	var weak *confine.WeakError
	if !errors.As(err, &weak) {
		return err
	}
	return fmt.Errorf("%w\nTo run the sandbox all the same, add --%s: then whoever breaks out of the guest has all that you have", err, machine.WeakIsolationFlag)
}

// missingWalls says what keeps QEMU less well from the machine than it could.
func missingWalls(missing []string) string {
	return "QEMU is confined less well than it could be, because this machine does not offer all: " + strings.Join(missing, "; ") + "\nsandbox doctor shows what there is"
}
