package qemu

import "github.com/sourcery-zone/sandbox/internal/confine"

// systemCalls allows what QEMU does in its life with us. Its own filter (-sandbox) only forbids what is known to be of
// use to an intruder, and begins after QEMU has read its command line.
func systemCalls(hostNetwork bool) *confine.Filter {
	if hostNetwork {
		return confine.WorkingFilter(confine.InternetSockets()...)
	}
	return confine.WorkingFilter()
}
