package supervisor

import (
	"errors"
	"strings"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// explainWeak adds to a start that was refused how to have it all the same.
func explainWeak(err error) error {
	if _, weak := errors.AsType[*confine.WeakError](err); !weak {
		return err
	}
	return remedy.Add(err, remedy.AllowWeak)
}

// missingWalls says what keeps QEMU less well from the machine than it could.
func missingWalls(missing []string) string {
	return "QEMU is confined less well than it could be, because this machine does not offer all: " + strings.Join(missing, "; ") + "\nsandbox doctor shows what there is"
}
