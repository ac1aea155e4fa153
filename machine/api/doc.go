// Package api is what a command and a supervisor say to each other: the start of a
// supervisor, its reports while it starts, and the calls that it takes from then on.
//
// Calls are HTTP on a unix socket that only the sandbox's owner can reach. Each is a
// POST to /v2/NAME with its request as JSON, and is answered with JSON, or with an
// Error and the status 409. Those that carry a stream have the header Upgrade with
// the call's name, and are answered with 101; what follows on the connection is the
// stream. A file here is one call with its types, its client's half and its
// server's.
package api

// Version is the number in the addresses. It grows when a client of the previous
// number would misunderstand the answers, or be misunderstood: a supervisor lives as
// long as its guest, so it may be met by a newer or an older program than its own.
const Version = 2
