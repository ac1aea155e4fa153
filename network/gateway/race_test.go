//go:build race

package gateway_test

// raced says that the race detector looks on, which takes several times the memory.
const raced = true
