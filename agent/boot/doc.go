// Package boot is what a guest's agent learns before anybody talks to it: from
// the maker of its image by a file of the initrd, [Image], and from the host by
// words of the kernel's command line, [Params]. Each is written and read by the
// same type.
package boot
