// Command traffic makes the connections that internal/bench measures: in a guest, as
//
//	traffic ADDRESS MODE CONNECTIONS AMOUNT
//
// it prints how long each of its operations took, in nanoseconds. It says to the server at
// ADDRESS, in a line, "down BYTES", "up BYTES" or "echo 0", or by HTTPS "GET /"; modes that
// begin with https make requests to a server, of which ADDRESS is the URL.
package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "traffic: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("there are %d arguments, and not ADDRESS MODE CONNECTIONS AMOUNT", len(args))
	}
	connections, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	amount, err := strconv.ParseInt(args[3], 10, 64)
	if err != nil {
		return err
	}
	address := args[0]
	switch mode := args[1]; mode {
	case "down", "up":
		return transfer(address, mode, connections, amount)
	case "connect":
		return connect(address, amount)
	case "request":
		return request(address, amount)
	case "hold":
		return hold(connections, func() (net.Conn, error) { return echo(address) })
	case "hold-read":
		return hold(connections, func() (net.Conn, error) { return get(address) })
	case "https-request", "https-connect", "https-first", "https-down", "https-up":
		return browse(address, mode, amount)
	default:
		return fmt.Errorf("there is no mode %q", mode)
	}
}

// transfer moves an amount of bytes over some connections at once.
func transfer(address, mode string, connections int, amount int64) error {
	start := time.Now()
	var group errgroup.Group
	for range connections {
		group.Go(func() error {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return err
			}
			defer c.Close()
			part := amount / int64(connections)
			if _, err := fmt.Fprintf(c, "%s %d\n", mode, part); err != nil {
				return err
			}
			if mode == "up" {
				if err := send(c, part); err != nil {
					return err
				}
				part = 1 // the server has it all
			}
			got, err := io.Copy(io.Discard, c)
			if err == nil && got != part {
				err = fmt.Errorf("%d bytes came of %d", got, part)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Println(time.Since(start).Nanoseconds())
	return nil
}

func send(w io.Writer, amount int64) error {
	b := make([]byte, 256<<10)
	for amount > 0 {
		n, err := w.Write(b[:min(amount, int64(len(b)))])
		if err != nil {
			return err
		}
		amount -= int64(n)
	}
	return nil
}

// connect makes connections one after the other, with an answer from each.
func connect(address string, times int64) error {
	for range times {
		start := time.Now()
		c, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		if _, err = fmt.Fprintln(c, "echo 0"); err == nil {
			_, err = bufio.NewReader(c).ReadByte()
		}
		took := time.Since(start)
		c.Close()
		if err != nil {
			return err
		}
		fmt.Println(took.Nanoseconds())
	}
	return nil
}

// request asks over one connection, again and again.
func request(address string, times int64) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	answers := bufio.NewReader(c)
	for range times {
		start := time.Now()
		if _, err := fmt.Fprintln(c, "echo 0"); err != nil {
			return err
		}
		if _, err := answers.ReadByte(); err != nil {
			return err
		}
		fmt.Println(time.Since(start).Nanoseconds())
	}
	return nil
}

// hold keeps connections open until stdin ends, of which it says so.
func hold(connections int, open func() (net.Conn, error)) error {
	for i := range connections {
		c, err := open()
		if err != nil {
			return fmt.Errorf("the connection %d: %w", i, err)
		}
		defer c.Close()
	}
	fmt.Println("held")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// echo returns a connection over which one answer has come.
func echo(address string) (net.Conn, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintln(c, "echo 0"); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return c, err
}

// get does the same by HTTPS.
func get(address string) (net.Conn, error) {
	c, err := tls.Dial("tcp", address, nil)
	if err != nil {
		return nil, err
	}
	name, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name); err != nil {
		return nil, err
	}
	answer := bufio.NewReader(c)
	for line := ""; line != "\r\n"; {
		if line, err = answer.ReadString('\n'); err != nil {
			return nil, err
		}
	}
	_, err = answer.ReadByte()
	return c, err
}
