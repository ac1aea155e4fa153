package qemu

import "testing"

// The messages are those of QEMU 10.0.
func TestComplaintsAreRecognised(t *testing.T) {
	for message, want := range map[string]struct{ cid, port bool }{
		"qemu-system-x86_64: -device vhost-vsock-pci,guest-cid=7: vhost-vsock: unable to set guest cid: Address already in use":               {cid: true},
		"qemu-system-x86_64: -netdev user,id=net0,hostfwd=tcp:127.0.0.1:22-:22: Could not set up host forwarding rule 'tcp:127.0.0.1:22-:22'": {port: true},
		"qemu-system-x86_64: Address already in use": {},
	} {
		if CIDTaken(message) != want.cid || PortTaken(message) != want.port {
			t.Errorf("%s: %t and %t", message, CIDTaken(message), PortTaken(message))
		}
	}
}
