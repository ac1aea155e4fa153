// Package virtiofstest is a guest without a machine, for tests and benchmarks of what serves a share: it speaks
// vhost-user to virtiofsd, as QEMU does, and sends it requests of FUSE, as the guest's kernel does. It sends what it is
// told to, so it can ask for what no kernel would.
package virtiofstest
