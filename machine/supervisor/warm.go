package supervisor

import (
	"errors"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/machine"
)

// checkSaved makes sure that the guest can start with what was saved.
func (v *supervisor) checkSaved(plan *machine.Plan) error {
	if !v.saved.Template {
		return plan.Fits(v.saved.Manifest)
	}
	key, err := plan.TemplateKey(len(plan.Shares))
	if err == nil && key != filepath.Base(v.saved.dir) {
		err = errors.New("the template is not for this sandbox: something that it depends on has changed just now")
	}
	return err
}
