// Package wire is what the two ends of the agent's connection have in common:
// package agent on the host, and agent/server and agent/guest in the guest. It
// has the names of requests, the messages that they carry, the greeting and the
// frames of the serial port, and limits that both ends keep.
//
// What an importer of package agent fills in or reads, such as its BootConfig
// and Status, is part of that package.
package wire
