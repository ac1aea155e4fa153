// Package guest is the program that runs inside every sandbox, as the first
// process of the guest and then as the service that answers the host.
//
// [Init] is process 1: it makes the kernel's file systems visible, starts the
// service, and waits. [Service] opens the transport to the host at once, loads
// the modules that the image names, mounts the read-only store with a writable
// overlay, gets the network's address, takes the host's configuration, mounts
// home and shares, and moves into the new root. Then process 1 becomes the
// image's own init and the service lives on beside it: commands run while
// systemd is still starting.
//
// Package agent/server answers the host's channel and TCP port 22, with the
// service as its Controller. The host's half is package agent.
package guest
