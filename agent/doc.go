// Package agent talks to the program inside a guest: it starts commands and
// terminals there, waits until the guest is ready, and lends the connection to
// other SSH clients.
//
// The protocol is SSH with the guest as the server. A [Mux] opens streams to
// the guest, over a virtio-serial port ([NewSerialMux]) or over vsock
// ([NewVsockMux]); [Connect] makes one stream an authenticated [Client], whose
// [Cmd] has the shape of the one in os/exec. [Forward] serves plain ssh, scp
// and sftp over the same connection without a second handshake.
//
// The guest's half is package agent/guest, with the server of agent/server.
// Package agent/transfer copies files, and agent/agenttest is for tests.
package agent
