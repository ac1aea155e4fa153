// Package virtiofs shares directories of the host with a guest.
//
// A [Share] says which directory appears where in the guest. [ParseShare] reads it from the command line,
// [Share.Admit] tells whether it may be shared at all and records what it is, [Share.Open] opens it each time that
// it is to be served if it is still that, and [Arrange] puts several of them in the order in which the guest has to
// mount them.
//
// The work is done by virtiofsd, one process per share, which speaks vhost-user to the virtual machine over
// a socket. [Find] looks for the program, and [Daemon.Start] runs it with as little power over the host as
// the machine allows, so that
//
//   - a file that any user of the guest makes belongs to one user of the host, and that user's files belong to
//     one user of the guest;
//   - nobody in the guest, root included, can do more to the shared files than that host user can;
//   - a read-only share cannot be written, whatever the guest mounts it as;
//   - a change made on the host is seen in the guest within a second. What is read before may have the length of before.
//
// A guest whose virtiofsd dies hangs in its next access. Whoever runs both must therefore stop the virtual
// machine first; virtiofsd then ends by itself.
package virtiofs
