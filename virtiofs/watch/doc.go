// Package watch notices what this machine changes in a directory that a guest has as a share, so that the guest can be
// told: its kernel tells its programs (inotify(7)) only of what it does itself.
//
// A [Tree] has a watch of the kernel's on each directory, found below the one that is open and through no symbolic link.
// It tells of names: of what was written when the writer has closed it, and of a directory in which a name came or went.
// Times, modes and owners are not told of. What comes fast one after the other is told once.
//
// The guest's own doings are among the kernel's events too, and are not told of: the gate, which sees each before it
// happens, says what to expect (see [Tree.GuestDoes]). Where the two cannot be matched, it is told of once too often and
// never once too few, as every change of the host's has an event of its own.
//
// # What is bounded
//
//   - [MaxDirectories] are watched, or what the kernel allows; the upper ones come first.
//   - Some thousand names wait to be told at most. Then only their directories are.
//   - The work is a fifth of a processor's time at most, whatever the guest does to make more.
//   - Events that the kernel drops for that make the whole tree be looked at, for what has changed since.
//
// # What is not watched
//
// What is in directories named node_modules, and in those of Git's objects: [Skipped].
package watch
