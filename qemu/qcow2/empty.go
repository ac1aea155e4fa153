package qcow2

import (
	"encoding/binary"
	"fmt"
	"path/filepath"
)

const (
	// clusterBits is QEMU's own default: large enough for few and small tables, small enough for what a guest
	// writes here and there.
	clusterBits = 16
	clusterSize = 1 << clusterBits

	// refcountOrder makes reference counts of 16 bits, which is QEMU's default, too.
	refcountOrder = 4
)

// The places of an empty image's parts, in clusters.
const (
	refcountTableCluster = 1
	refcountBlockCluster = 2
	l1Cluster            = 3
)

// Empty returns a whole image of a disk of size bytes that holds nothing, or what the image called below shows, which is
// qcow2, too, and in the same directory. Most of it is zeroes.
func Empty(size int64, below string) ([]byte, error) {
	if size <= 0 || size > maxSize || size%512 != 0 {
		return nil, fmt.Errorf("a disk image of %d bytes cannot be made: its size is a multiple of 512 up to %d", size, int64(maxSize))
	}
	if len(below) > maxBackingName || below != "" && below != filepath.Base(below) {
		return nil, fmt.Errorf("%q cannot be below a disk image: it must be a short name without a directory", below)
	}
	const perEntry = clusterSize / 8 * clusterSize // what one table of the second level is for
	entries := (size + perEntry - 1) / perEntry
	clusters := l1Cluster + int(entries*8+clusterSize-1)/clusterSize
	h := header{
		Magic: magic, Version: 3, ClusterBits: clusterBits, Size: uint64(size), L1Size: uint32(entries),
		L1Offset: l1Cluster << clusterBits, RefcountTableOffset: refcountTableCluster << clusterBits,
		RefcountTableClusters: 1, RefcountOrder: refcountOrder, Length: headerLength,
	}
	var extensions []byte
	if below != "" {
		extensions = extension(extensionBackingFormat, "qcow2")
	}
	extensions = append(extensions, extension(extensionEnd, "")...)
	if below != "" {
		h.BackingOffset, h.BackingSize = headerLength+uint64(len(extensions)), uint32(len(below))
	}
	head, err := binary.Append(nil, binary.BigEndian, h)
	if err != nil {
		return nil, err
	}
	image := make([]byte, clusters<<clusterBits)
	copy(image, append(append(head, extensions...), below...))
	binary.BigEndian.PutUint64(image[refcountTableCluster<<clusterBits:], refcountBlockCluster<<clusterBits)
	for i := range clusters { // each cluster is used once
		binary.BigEndian.PutUint16(image[refcountBlockCluster<<clusterBits+2*i:], 1)
	}
	return image, nil
}

// extension is one of the header, padded to 8 bytes.
func extension(kind uint32, text string) []byte {
	b := binary.BigEndian.AppendUint32(nil, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(text)))
	b = append(b, text...)
	return append(b, make([]byte, -len(text)&7)...)
}
