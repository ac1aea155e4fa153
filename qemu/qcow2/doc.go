// Package qcow2 makes empty disk images in QEMU's format, and judges the headers of those that QEMU has written to.
//
// A QEMU that a guest has taken over can write anything into the images that it has open. Whoever opens such an image
// next believes its header: the name of an image below it, or of a file with the data, is opened with the opener's own
// rights, and written to when layers are united. So Check accepts what Empty makes and QEMU makes of that, and
// nothing else.
//
//	image, err := qcow2.Empty(20<<30, "")
//	if err != nil {
//		return err
//	}
//	size, err := qcow2.Check(bytes.NewReader(image), "")
//
// The format is described in QEMU's docs/interop/qcow2.rst.
package qcow2
