package virtiofs

import (
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
)

// systemCalls is the filter around virtiofsd, beside its own, which allows by name and not by argument. The guest's
// root may not give files of the host user set-id bits, with which other users of the host would run them as that
// user: it gets EPERM, as a service does with systemd's RestrictSUIDSGID. The kernel still lets what is made in a
// set-group-ID directory have that directory's group.
//
// With a judge, what changes files is asked of a gate (package gate), which refuses the above in the filter's place, and tells
// of it; with a quota, what is written to them, too, and with touches what times they get.
//
// With keepGroups, virtiofsd believes that it has given up the groups with which it was started. It would do so
// because it could take others, which this filter keeps it from, too.
func systemCalls(keepGroups bool, judge gate.Judge, quota, touches bool) *confine.Filter {
	// The mode is in memory that a filter cannot see. Without this call, virtiofsd makes do with openat.
	rules := []confine.Rule{
		{Calls: []int{unix.SYS_OPENAT2}, Do: confine.Refuse(unix.ENOSYS)},
		{Calls: []int{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}, Do: confine.Refuse(unix.ENOSYS)},
	}
	if keepGroups {
		rules = append(rules, confine.Rule{Calls: []int{unix.SYS_SETGROUPS}, Do: confine.Refuse(0)})
	}
	setID := confine.Refuse(unix.EPERM)
	if judge != nil {
		setID = confine.Notify
	}
	rules = append(rules, gate.SetIDFilter(setID)...)
	if judge != nil {
		rules = append(rules, gate.Filter(judge.Hides(), quota, touches)...)
	}
	return &confine.Filter{Rules: rules, Default: confine.Allow}
}
