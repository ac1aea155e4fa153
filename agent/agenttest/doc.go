// Package agenttest has an agent that runs on this machine, for tests of what
// talks to one, as net/http/httptest has a server.
//
// [NewServer] makes it: the server of package agent/server itself, whose commands
// are processes of the user who runs the tests, with a fake of the guest's own
// service behind it, a [Guest], which notes what the host tells it. What such an
// agent starts its own program for, SFTP and copies, the test binary does, if
// TestMain begins with [RunSelf].
package agenttest
