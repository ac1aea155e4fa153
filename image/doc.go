// Package image is what a sandbox boots from: a directory with a manifest, a
// kernel, an initial RAM disk and a read-only store, immutable and named by its
// content, so that any number of sandboxes can share it.
//
// The package reads and checks images, keeps a store of them, and knows nothing
// about how they are made: image/debian makes one from Debian packages, and
// image/nix has Nix build what a flake describes, both with image/assemble. What a manifest says to the guest's agent has the type by which the
// agent reads it, of package agent/boot. manifest.schema.json is the contract
// between makers and users.
package image
