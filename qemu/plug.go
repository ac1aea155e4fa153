package qemu

import "os"

// DeviceID is the name by which QEMU knows the device of a share that is in a slot of its own, and its connection to
// the daemon.
func (s Share) DeviceID() string { return "fs-" + portID(s.Port) }

// property is one of a device: text on a command line, value in the monitor's JSON.
type property struct {
	name, text string
	value      any
}

// properties are those of the device of a share, the same whether QEMU starts with it or gets it later: a saved state
// of the one can be loaded by the other.
//
// 1024 is the largest queue that the device takes; the default, 128, limits large files.
// QEMU loses a guest's word of a new request that comes while it stops the machine (vuf_handle_output does nothing
// in 7.2 and in 10.0). With the index of events, the guest would say no more of later ones: it waits for an answer
// to the lost one, for ever. Without, the next request reaches virtiofsd, which then finds both.
func (s Share) properties(chardev string) []property {
	var list []property
	add := func(name, text string, value any) { list = append(list, property{name, text, value}) }
	if s.Port != 0 {
		add("id", s.DeviceID(), s.DeviceID())
		add("bus", portID(s.Port), portID(s.Port))
	}
	add("chardev", chardev, chardev)
	add("tag", s.Tag, s.Tag)
	add("queue-size", "1024", 1024)
	add("event_idx", "off", false)
	return list
}

// PlugArguments are those of the monitor's device_add for the share, whose Port is free, once QEMU has a connection to
// its daemon of the name DeviceID.
func (s Share) PlugArguments() map[string]any {
	arguments := map[string]any{"driver": deviceShare}
	for _, p := range s.properties(s.DeviceID()) {
		arguments[p.name] = p.value
	}
	return arguments
}

// ConnectShare connects to a share's daemon for a QEMU that runs, which needs the socket to block. The caller closes
// the file.
func ConnectShare(socket string) (*os.File, error) { return connect(socket) }
