// Package nix holds the tests of the flake; the flake itself is in Nix.
//
// NixOS cannot be built without a binary cache, but it can be evaluated, which
// finds wrong options, types, conflicts and failed assertions, and gives the text
// of every file and unit. docs/nix.md says what is left to a machine with a
// cache.
package nix
