package qemu

// addPanic adds the device by which a guest's kernel tells that it has panicked, which its reboot after that does not
// show. The agent loads the driver. It is the last of all devices,
// whose places on the PCI bus are the same as without it.
func addPanic(a *argv) { a.option("-device", devicePanic) }
