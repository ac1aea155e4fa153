package process_test

import (
	"fmt"
	"os/exec"

	"github.com/sourcery-zone/sandbox/internal/process"
)

func Example() {
	p, err := process.Start(exec.Command("sh", "-c", "echo 'no such disk' >&2; exit 2"), process.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	<-p.Done()
	fmt.Println(p.Err())
	// Output: sh ended with exit status 2: no such disk
}
