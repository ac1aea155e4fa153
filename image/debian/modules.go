package debian

// bootModules are the kernel modules that a guest needs before it has its
// store, in the order in which the agent loads them, and a little more: what is
// built into the kernel is skipped, and what a module needs is added before it.
func bootModules() []string {
	return []string{
		"virtio_pci", "virtio_console", // the agent's channel and the console
		// The store and the writable layer over it. The checksum that erofs finds
		// when it is loaded is the one that it uses.
		"virtio_blk", "crc32c-intel erofs", "overlay",
		"ext4",             // the file system of that layer on a disk; built into Debian's cloud kernel
		"fuse", "virtiofs", // home and shares
		"virtio_net", "af_packet", // the network, and DHCP on it
		"vmw_vsock_virtio_transport", // the agent's channel where the host has vsock
		"virtio_rng",
		// Loaded when commands can run: memory for the host, and word of a panic.
		"virtio_balloon", "pvpanic-pci",
	}
}

// optionalModules help where they exist: the processor's own checksum, which
// other architectures name otherwise, and what tells of a panic.
func optionalModules() []string { return []string{"crc32c-intel", "pvpanic-pci"} }
