// Command bench measures how fast sandboxes are, from outside through the built
// program, and prints one table. Each figure is a ratio of two things that were
// measured in turn in the same run, so that figures of different machines, and
// of a busy one, can be compared; docs/benchmarks.md says what they mean.
//
//	go run ./internal/bench -repeat 5 -only ready-overhead,system-ready
package main
