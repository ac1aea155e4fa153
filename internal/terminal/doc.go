// Package terminal makes text safe to show. Names, messages and logs may come
// from a guest or from a stranger's project, and a terminal obeys what it is
// shown: it can be told to overwrite what stands above, to set the clipboard, or
// to turn the direction of a line. Such characters are shown as escapes, as in a
// Go string: \x1b, \u202e. Colours, which logs are full of, are left out.
//
// What a program in the guest writes to a terminal or a stream of its own does
// not pass through here.
package terminal
