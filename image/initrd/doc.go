// Package initrd writes the initial RAM disk of an image: a newc cpio archive
// with the agent as /init, the kernel modules that a sandbox needs, uncompressed
// with their load order, and /guest.json, which tells the agent about the image.
//
// There is no shell and no tool in it: the agent is the whole of stage one.
package initrd
