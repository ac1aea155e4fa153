// Package machine is the sandboxes of one user as commands and other programs see
// them: their configuration, their state on disk, and everything that can be done with
// one.
//
// There is no daemon. Every running sandbox has one supervisor, a process that holds
// the sandbox's lock for as long as it lives; all truth about a sandbox is that lock,
// the files that package layout names, and the processes themselves. Whoever wants to
// know whether a sandbox runs asks the lock, so a supervisor that was killed cannot
// leave a sandbox that looks alive. Package supervisor is what that process does, and
// package api how it is spoken to.
package machine
