// Package smoke boots images and finds out whether what a sandbox promises
// holds in them: both stages of readiness, the built-in checks, the caller's
// own, and an orderly power-down. Its report tells a bad image from a machine
// that could not say.
//
// As with package machine, the calling executable must call supervisor.Main first of all.
package smoke
