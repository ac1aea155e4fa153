// Package hostdir opens directories of the host in a way that nobody can turn into another directory.
//
// A path is an instruction that is followed anew each time, and a guest that may write to a directory above
// can change where it leads: it moves a directory away and leaves a symbolic link in its place. So a path
// that a user wrote is resolved once ([Resolve]); from then on it is opened component by component without
// following any link ([Open]), compared with what is on record of the directory ([Identity]), and whatever
// has to be decided is decided on the descriptor.
package hostdir
