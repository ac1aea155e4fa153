package confine

import (
	"errors"
	"strings"
)

// Report says which walls are around a program.
type Report struct {
	Walls []Wall `json:"walls"`
}

// Wall is one way in which a program is kept from the rest of the machine.
type Wall struct {
	Name string `json:"name"`
	// Detail is what it consists of here; empty if it is missing.
	Detail string `json:"detail,omitempty"`
	// Missing is why it is not there; empty if it is.
	Missing string `json:"missing,omitempty"`
}

// The names of walls.
const (
	WallUser       = "user"
	WallNamespaces = "namespaces"
	WallPrivileges = "privileges"
	WallLandlock   = "landlock"
	WallSyscalls   = "syscalls"
)

func (r *Report) has(name, detail string) {
	r.Walls = append(r.Walls, Wall{Name: name, Detail: detail})
}

func (r *Report) lacks(name string, err error) {
	r.Walls = append(r.Walls, Wall{Name: name, Missing: err.Error()})
}

// Missing lists what is not there, with the reasons.
func (r Report) Missing() []string {
	var list []string
	for _, w := range r.Walls {
		if w.Missing != "" {
			list = append(list, w.Name+": "+w.Missing)
		}
	}
	return list
}

// String lists what is there.
func (r Report) String() string {
	var list []string
	for _, w := range r.Walls {
		if w.Missing == "" {
			list = append(list, w.Name+" ("+w.Detail+")")
		}
	}
	return strings.Join(list, ", ")
}

// explain puts why no namespaces could be had into the report of a program without.
func (r *Report) explain(errs []error) {
	for i := range r.Walls {
		if w := &r.Walls[i]; w.Missing != "" && w.Name == WallNamespaces && len(errs) > 0 {
			w.Missing = strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; ")
		}
	}
}
