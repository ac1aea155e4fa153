package network_test

import (
	"fmt"
	"log"

	"github.com/sourcery-zone/sandbox/network"
)

// Two ports of the guest become ports of the host, one of them wherever there is room.
func Example() {
	var forwards []network.Forward
	for _, spec := range []string{"8080:80", "0:5432"} {
		forward, err := network.ParseForward(spec)
		if err != nil {
			log.Fatal(err)
		}
		forwards = append(forwards, forward)
	}
	if err := network.CheckConflicts(forwards); err != nil {
		log.Fatal(err)
	}
	database, err := forwards[1].Resolve()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(forwards[0], database.HostPort > 0, network.MAC("my-project"))
	// Output: 127.0.0.1:8080:80 true 52:54:00:1c:7c:d9
}
