package qmp

// ShutdownReason is why QEMU ends, or would end if it was not told to stay (ShutdownCause in QEMU's QAPI schema).
type ShutdownReason string

// The reasons that somebody who runs a machine meets.
const (
	ShutdownGuest  ShutdownReason = "guest-shutdown" // the guest powered off
	ShutdownReset  ShutdownReason = "guest-reset"    // it rebooted, and QEMU was told not to (-no-reboot)
	ShutdownPanic  ShutdownReason = "guest-panic"    // its kernel panicked, and told so through pvpanic; see ReasonOf
	ShutdownQuit   ShutdownReason = "host-qmp-quit"  // by quit
	ShutdownSignal ShutdownReason = "host-signal"    // as SIGTERM
)

// ReasonOf returns the reason that an event gives for QEMU's end, if it is about that. A QEMU that was told to do nothing
// about a panic (-action panic=none) tells of it before the end for which the guest then has another reason.
func ReasonOf(e Event) (ShutdownReason, bool) {
	if e.Event == "GUEST_PANICKED" {
		return ShutdownPanic, true
	}
	reason, ok := e.Data["reason"].(string)
	return ShutdownReason(reason), ok && e.Event == "SHUTDOWN"
}
