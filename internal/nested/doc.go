// Package nested runs programs under KVM on a machine that has none: in a guest
// whose emulated processor has AMD's virtualisation. There, sandboxes run on
// microvm and over vsock, with addresses that are nobody else's. They are
// correct and slow, because each exit from such a guest is a long way for the
// emulator.
//
// Collect fills a directory with what sandboxes take, Start starts the guest,
// and Guest.Command runs a script in it.
package nested
