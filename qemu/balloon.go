package qemu

// addBalloon adds the device by which a running guest's memory is made smaller and larger again. It comes after
// all others, whose places on the PCI bus are the same as without it.
func addBalloon(a *argv) {
	a.option("-device", deviceBalloon, "id", a.id("balloon"),
		// What the guest has freed goes back to the host without anybody asking: QEMU punches holes into the
		// memory's file. Measured: 300 MiB that the guest wrote and freed were the host's within 3 seconds. Of
		// MemoryPrivate nothing goes back, because that file is only read, and QEMU logs each refusal; but a guest
		// that was saved with the device does not start without it.
		"free-page-reporting", "on",
		// A guest that would have to kill a process for want of memory takes some back from the balloon.
		"deflate-on-oom", "on")
}
