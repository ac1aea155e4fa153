// Package server is the SSH server of the agent inside a guest: sessions,
// terminals, forwards, SFTP, and the subsystem by which the host commands the
// guest.
//
// It works without a guest, on any Linux: what is the guest's own it has as a
// [Controller], whom its processes belong to from [Users], and when they can run
// from Ready. Package agent/guest puts it into a guest, package agent/agenttest
// into a test, and a launcher with an init of its own may do the same. Its client
// is package agent, and for all but the host's own requests any SSH client.
package server
