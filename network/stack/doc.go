// Package stack is a network for one guest, made in user space: to the guest it is a router, a DHCP server and a DNS
// server on an Ethernet of its own, to the host a process that dials.
//
// A [Network] speaks Ethernet over a socket whose other end is the guest's card, one frame in each datagram. What the
// guest sends is taken apart by gVisor's TCP/IP stack, and what a [policy.Policy] opens goes on through sockets of the
// host: no privileges, no device and no route are needed. What it closes is refused at once and explained as far as IP
// can: "administratively prohibited" to a connection, "no such name" to a lookup.
//
// With a [policy.Allowlist], each open name has an address of its own for the guest, of [policy.NameAddresses], so that
// an address says which host is meant: the host looks the name up and dials it, and a client that then asks this address
// for another host, by TLS or HTTP, is refused.
//
// So has each name of [Config].Read in the public network, too: what is said to such a host at its port is read by the
// [proxy.Proxy], and all else goes to the addresses that the name leads to, as ever.
//
// The guest is not believed. Frames that are not from its card's first address and from its IP address are dropped
// before they reach the stack, and what it can make the process keep has a limit.
//
// Addresses are those of QEMU's own user network, [Guest], [Gateway] and [DNS], so that what people know of that holds.
// With [Config].IPv6, the guest makes itself some more, within [Prefix6]. What it asks its neighbors is answered here and not by
// the stack, whose neighbor discovery would answer for each address of the Internet.
package stack
