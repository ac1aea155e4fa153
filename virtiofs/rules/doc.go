// Package rules decides what a guest may do to the files of a shared directory.
//
// What the host executes by itself, such as hooks of Git and tasks of an editor, is frozen in a writable share, and what
// holds keys cannot be read in any. The decision is a pure function of the path in the share, of what is done there, and,
// where that matters, of what would be there afterwards: [Set.Judge]. Nothing here touches a file. Two ask it: the gate in
// front of virtiofsd for live shares, and whoever applies a guest's copy to the host's directory.
package rules
