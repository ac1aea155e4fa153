package virtiofs

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// OpenFiles returns how many files virtiofsd has open, and how many it may have. It holds one for each that the guest's
// kernel remembers: where there are no more, each look-up and each open of the guest fails, until it forgets some.
func (s *Server) OpenFiles() (open, limit int, err error) {
	of := fmt.Sprintf("/proc/%d", s.PID())
	inner, err := os.ReadFile(fmt.Sprintf("%s/task/%d/children", of, s.PID()))
	if err != nil {
		return 0, 0, err
	}
	if pids := strings.Fields(string(inner)); len(pids) > 0 { // within namespaces, one is its init, and the other serves
		of = "/proc/" + pids[0]
	}
	limits, err := os.ReadFile(of + "/limits")
	if err != nil {
		return 0, 0, err
	}
	const name = "Max open files"
	_, values, _ := strings.Cut(string(limits), name)
	if _, err := fmt.Sscan(values, &limit); err != nil { // the soft limit comes first
		return 0, 0, errors.New(of + "/limits does not say how many files may be open")
	}
	info, err := os.Stat(of + "/fd")
	if err != nil {
		return 0, 0, err
	}
	if info.Size() > 0 { // Linux counts from 6.2 on
		return int(info.Size()), limit, nil
	}
	names, err := os.ReadDir(of + "/fd")
	return len(names), limit, err
}
