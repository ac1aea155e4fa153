// Package tree moves files and directory trees as tar streams. Pack reads what
// the person chose and nothing that a link in it leads to; Unpack takes a
// stream from a stranger and writes nowhere but to the chosen place.
package tree
