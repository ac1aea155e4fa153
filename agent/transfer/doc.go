// Package transfer copies files and directories between this machine and a
// guest, over a connection of package agent.
//
// [To] and [From] copy what is at a path to a path, as cp(1) does: into a
// destination that is a directory, and else to the name that it has. [Extract]
// and [Archive] do the same for any tar archive that a program writes or reads.
// Modes, times, holes and symbolic links are kept, and owners are not.
//
// The guest is not trusted. Nothing that it sends is written outside of the
// destination, and no link is followed that a guest may have made: see
// [Options.Shared]. Only what [Archive] writes is the guest's own, for whoever
// reads it to judge.
//
// The guest's side is done by its agent, so an image needs no tar for it. From
// an agent that is too old for that comes an [*agent.UnsupportedError].
package transfer
