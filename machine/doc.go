// Package machine is the life cycle of a sandbox: its configuration, its
// state on disk, the supervisor that owns its processes while it runs, and the
// client that talks to that supervisor.
//
// There is no daemon. Every running sandbox has one supervisor, a process that
// holds the sandbox's lock for as long as it lives; all truth about a sandbox
// is that lock, the files that package layout names, and the
// processes themselves. Whoever wants to know whether a sandbox runs asks the
// lock, so a supervisor that was killed cannot leave a sandbox that looks
// alive.
package machine
