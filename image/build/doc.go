// Package build makes images and puts them into a store: from a flake, by Nix, or from
// Debian packages, by the recipe of package debian.
package build
