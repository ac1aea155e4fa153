// Package progress tells a person who waits what a long command is doing: a bar
// or a spinner on a terminal, plain lines everywhere else.
package progress
