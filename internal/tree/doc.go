// Package tree copies, moves and removes directory trees that a stranger may
// have made and may be changing at the same time: a guest that shares them.
//
// Everything goes from one directory to the next by descriptors, one name at a
// time, and follows no symbolic link; so a link that takes a directory's place
// meanwhile leads nowhere. No path is ever put together, so trees may be deeper
// than paths can be long, and the number of open descriptors does not grow with
// their depth.
//
// [Copy] and [Remove] are for trees on this machine. [Pack] and [Unpack] move
// files and trees as tar streams between machines. [Find] resolves a path that
// a person typed.
package tree
