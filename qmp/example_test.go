package qmp_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"time"

	"github.com/sourcery-zone/sandbox/qmp"
)

// A QEMU that was started with -qmp unix:/run/user/1000/vm/qmp.sock,server=on,wait=off is paused,
// asked how it is, and sent on its way.
func Example() {
	conn, err := net.Dial("unix", "/run/user/1000/vm/qmp.sock")
	if err != nil {
		log.Fatal(err)
	}
	client := qmp.NewClient(conn, qmp.Options{})
	defer client.Close()

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.Handshake(ctx); err != nil {
		log.Fatal(err)
	}
	if err := client.Stop(ctx); err != nil {
		log.Fatal(err)
	}
	status, err := client.Status(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("QEMU", client.Greeting().Version, "is", status.State)
	if err := client.Cont(ctx); err != nil {
		log.Fatal(err)
	}
}

// Any command of QEMU's reference works, with arguments and results as Go values.
func ExampleClient_Execute() {
	var client *qmp.Client // connected, as above

	var devices []struct {
		Device string `json:"device"`
		Locked bool   `json:"locked"`
	}
	if err := client.Execute(context.Background(), "query-block", nil, &devices); err != nil {
		log.Fatal(err)
	}
	eject := map[string]any{"id": "cd0", "force": true}
	err := client.Execute(context.Background(), "eject", eject, nil)
	if qmp.IsClass(err, qmp.ClassDeviceNotFound) {
		fmt.Println("there is no such drive")
	}
}

// The channel outlives the connection by the events that are still in it.
func ExampleClient_Events() {
	var client *qmp.Client // connected, as above

	events, err := client.Events(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for e := range events {
		fmt.Println(e.Event, e.Data)
	}
	fmt.Println("the connection ended:", client.Err())
}
