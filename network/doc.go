// Package network decides how a guest reaches the network and how the host reaches the guest.
//
// A [Mode] is what the guest gets. A [Forward] leads connections to a port of the host to a port of the guest;
// [ParseForward] reads it from the command line, and [Forward.CheckFree] tells why the host's port cannot be had.
// Unless an address is written out, a port is opened to programs on this machine only.
package network
