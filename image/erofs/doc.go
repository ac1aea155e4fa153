// Package erofs packs tar streams into the read-only EROFS store of an image.
//
// The data is stored uncompressed: a guest under software emulation reads it
// faster than it could decompress it, and page cache is shared between all
// sandboxes of an image. Serialisation is the work of
// github.com/erofs/go-erofs; this package adds what a root file system needs
// beyond it: hard links, device numbers as tar states them, POSIX ACLs, the
// volume label, and a check of the result. The bytes depend only on the
// entries, never on their order in the stream nor on the clock.
package erofs
