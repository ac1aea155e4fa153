package agent_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/sourcery-zone/sandbox/agent"
	"golang.org/x/crypto/ssh"
)

// Run a command in a guest whose serial port is at the other end of port.
func Example() {
	run := func(ctx context.Context, port net.Conn, key ssh.Signer) (err error) {
		mux, err := agent.NewSerialMux(ctx, port)
		if err != nil {
			return err
		}
		defer mux.Close()
		stream, err := mux.Open(ctx)
		if err != nil {
			return err
		}
		client, err := agent.Connect(ctx, stream, key)
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.SyncClock(ctx); err != nil {
			return err
		}
		if err := client.Configure(ctx, agent.BootConfig{Hostname: "box"}); err != nil {
			return err
		}
		cmd := client.Command(ctx, "make", "test")
		cmd.Dir, cmd.Stdout, cmd.Stderr = "project", os.Stdout, os.Stderr
		err = cmd.Run()
		if exit, ok := errors.AsType[*agent.ExitError](err); ok {
			fmt.Println("make ended with status", exit.Code)
		}
		return err
	}
	_ = run
}
