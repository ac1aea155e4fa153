// Package qmptest has a monitor that plays a script, for tests of what talks to
// QEMU, as net/http/httptest has a server.
//
// A script is a function that runs in a goroutine of its own, at QEMU's end of a
// connection: it says and reads what it likes, and so can do what QEMU never
// does, at the worst moment.
package qmptest
