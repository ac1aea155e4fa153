package supervisor

import (
	"github.com/sourcery-zone/sandbox/internal/hostdir"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// openHome opens the guest's home, which lies where no guest can put anything.
func (v *supervisor) openHome() (*hostdir.Dir, error) {
	path, err := hostdir.Resolve(v.s.Files().Dir())
	if err != nil {
		return nil, err
	}
	own, err := hostdir.Open(path)
	if err != nil {
		return nil, err
	}
	defer own.Close()
	return own.Beneath(layout.HomeDir)
}
