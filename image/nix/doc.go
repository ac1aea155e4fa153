// Package nix builds an image with Nix: it runs `nix build` on an output of a
// flake, shows how far that is, and explains in a sentence what went wrong.
//
// What a flake has to provide is a directory that package image can load. Nix
// is needed for the build alone: once the result is in an image.Store, sandboxes
// run from it without.
package nix
