// Package kernel prepares the kernel of an image.
//
// QEMU starts an uncompressed kernel by the PVH protocol: under emulation that is
// two of six seconds sooner than letting the kernel decompress itself (measured
// on 6.12). The price is that the guest's kernel is at a fixed address, as it is
// the decompressor that would move it; the machine, not the kernel, is a
// sandbox's boundary.
package kernel
