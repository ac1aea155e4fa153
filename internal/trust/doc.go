// Package trust tells whether somebody else could have put a file or a directory
// where it was found. A name in a directory that others may write, such as /tmp,
// says nothing about who is behind it: there may be a link to what is the
// caller's, or a file that gives the caller orders.
//
// Paths are walked with descriptors, and what is judged is what was opened.
package trust
