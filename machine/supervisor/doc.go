// Package supervisor is the process that runs one sandbox: it starts virtiofsd and
// QEMU, knows the guest by its agent, answers the calls of package api, and dies with
// everything that it started.
//
// Nothing that it takes to list, inspect, start or remove the sandbox lives only in
// its memory: what became of the sandbox is in the state file, and that it runs is the
// lock that it holds. All else here has the receiver v.
package supervisor
