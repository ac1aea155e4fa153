package qcow2_test

import (
	"bytes"
	"fmt"
	"log"

	"github.com/sourcery-zone/sandbox/qemu/qcow2"
)

func Example() {
	layer, err := qcow2.Empty(20<<30, "0.qcow2")
	if err != nil {
		log.Fatal(err)
	}
	size, err := qcow2.Check(bytes.NewReader(layer), "0.qcow2")
	fmt.Println(size>>30, "GiB", err)
	_, err = qcow2.Check(bytes.NewReader(layer), "")
	fmt.Println(err)
	// Output:
	// 20 GiB <nil>
	// its header names an image below it, "0.qcow2", and must name none
}
