// Package rootfs packs a whole system, which comes as a tar stream from whatever
// has installed it, into the store of an image: without what the maker of the
// image drops, and with the maker's own files in place of the system's.
//
// [Pack] does that in one pass over the stream. What the maker wants of it
// besides, such as the kernel or the list of packages, it takes in passing, by
// [Options.Visit].
package rootfs
