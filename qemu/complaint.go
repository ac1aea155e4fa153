package qemu

import "strings"

// What QEMU says when it ends because somebody else has what it was to have. The
// kernel's reason, which follows, is left out: it may be in any language.

// CIDTaken recognises QEMU's complaint that another guest of the host has the vsock
// context id.
func CIDTaken(message string) bool { return strings.Contains(message, "unable to set guest cid") }

// PortTaken recognises QEMU's complaint that it cannot listen on a port of the host.
func PortTaken(message string) bool { return strings.Contains(message, "host forwarding rule") }
