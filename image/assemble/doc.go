// Package assemble puts an image together: a kernel, an initial RAM disk with the
// agent, and a store that is there become a directory that package image can
// load, with the manifest that describes them.
//
// It is what the makers of images have in common, whatever their packages come
// from: the Debian recipe, the builder that runs in Nix, and those of tests.
package assemble
