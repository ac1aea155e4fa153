// Command vsock does in a guest what the test of the vsock transport needs and
// no program of a distribution can do.
//
//	vsock login CID PORT [KEY]   open a guest's agent with the key in the file, or a stranger's
//	vsock cut PID                break the vsock connections of a process
package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/agent"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(args []string) error {
	numbers := make([]int, len(args))
	for i, arg := range args {
		numbers[i], _ = strconv.Atoi(arg) // 0 means nothing below
	}
	switch {
	case len(args) == 3 && args[0] == "login":
		key, err := strangersKey()
		if err != nil {
			return err
		}
		return login(uint32(numbers[1]), uint32(numbers[2]), key)
	case len(args) == 4 && args[0] == "login":
		data, err := os.ReadFile(args[3])
		if err != nil {
			return err
		}
		key, err := ssh.ParsePrivateKey(data)
		if err != nil {
			return err
		}
		return login(uint32(numbers[1]), uint32(numbers[2]), key)
	case len(args) == 2 && args[0] == "cut":
		return cut(numbers[1])
	}
	return errors.New("usage: vsock login CID PORT [KEY] | vsock cut PID")
}

func strangersKey() (ssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	return ssh.NewSignerFromKey(private)
}

// login succeeds when the guest's agent takes the key.
func login(cid, port uint32, key ssh.Signer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	conn, err := agent.NewVsockMux(cid, port).Open(ctx)
	if err != nil {
		return err
	}
	client, err := agent.Connect(ctx, conn, key)
	if err != nil {
		return fmt.Errorf("connected, but not admitted: %w", err)
	}
	return client.Close()
}

// cut shuts down every vsock connection of a process, as the kernel does when a
// guest's transport is reset.
func cut(pid int) error {
	process, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return err
	}
	defer unix.Close(process)
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil {
		return err
	}
	found := 0
	for _, file := range files {
		number, err := strconv.Atoi(filepath.Base(file))
		if err != nil {
			return err
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		if err != nil {
			return err
		}
		if family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err == nil && family == unix.AF_VSOCK {
			found++
			if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
				return err
			}
		}
		unix.Close(fd)
	}
	if found == 0 {
		return fmt.Errorf("process %d has no vsock connection", pid)
	}
	fmt.Println(found)
	return nil
}
