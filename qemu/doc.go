// Package qemu turns a description of a machine into QEMU's command line, finds out what a QEMU binary
// can do, and starts it.
//
// Building the command line is pure: Config.Args depends on the configuration and on the probed
// Capabilities only. So the exact line can be shown to the user, tested without booting, and typed by
// hand to reproduce a run. Files that the caller opened beforehand (the monitor's, the agent's and the
// console's sockets) are inherited by number; QEMU listens on nothing but the forwarded ports.
//
// KVM is used only where a small real guest has run under it (ProbeKVM): there are machines on which
// /dev/kvm opens and an ordinary guest then spins for ever.
//
// The package imports internal/process, because QEMU must never outlive the process that started it.
package qemu
