// Package debian builds an image from Debian packages, on a machine that need
// not have Nix nor be Debian: mmdebstrap installs the packages and streams the
// result to us as a tar archive; this package drops what no sandbox needs, adds
// the files of its own tables (masked units, shells, sudo's one rule), and packs
// the rest as an EROFS store.
//
// The slow half, the root file system, is cached by a digest of everything that
// was asked for; a new agent binary costs a new initial RAM disk and nothing
// else.
package debian
