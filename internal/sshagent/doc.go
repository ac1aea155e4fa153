// Package sshagent lends some keys of a user's ssh agent to somebody whom the user does not trust.
//
// Who borrows speaks the protocol of ssh agents, of which two messages are answered: those that list keys, and those that
// ask for a signature. Nothing that the borrower says reaches the user's agent but the data to sign, with a key that the
// agent itself has told of and that is lent; and only such data as can be told apart: of a login by ssh, or of a signature
// that names what it is for, as those of Git do. So each use can be logged by what it was for.
package sshagent
