// Package ownthread runs functions that change their thread for good, such as by moving it into a namespace.
package ownthread

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Run runs f on a thread that is nothing else's and ends with it, and returns when f does. It is not the main thread,
// whose namespaces /proc shows for the process.
func Run(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			defer runtime.UnlockOSThread()
			Run(f)
			return
		}
		f() // and the thread is never unlocked
	}()
	<-done
}
