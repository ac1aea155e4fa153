// Package process runs helper programs whose life is bound to ours.
//
// A program started here is killed by the kernel when this process ends, however it ends, so nothing
// that a sandbox needs is ever orphaned. Its last lines of standard error are kept and quoted in the
// error that reports its end, because "exit status 1" helps nobody.
package process
