package main

import (
	"os"
	"os/signal"
	"slices"
)

// notify is signal.Notify for the signals that are heeded.
func notify(c chan<- os.Signal, signals ...os.Signal) {
	if signals = heeded(signals...); len(signals) > 0 { // none would stand for all
		signal.Notify(c, signals...)
	}
}

// heeded are those of the signals that were not ignored when the program
// began. Who starts it by nohup, after trap ” INT, or in the background of a
// script, means what it calls and waits for, too. Go knows this of SIGHUP and
// SIGINT only, and sets the others to their default.
func heeded(signals ...os.Signal) []os.Signal {
	return slices.DeleteFunc(slices.Clone(signals), signal.Ignored)
}
