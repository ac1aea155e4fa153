package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network"
)

func publishCommand() *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "forward ports of this machine to a sandbox",
		ArgsUsage: "NAME [IP:]HOST:GUEST[/udp]...",
		Description: `The ports are those of run --publish, for a sandbox that is there already. One that
runs has them at once, and both have them at each later start. The host's port 0 stands
for any that is free. What was opened is printed.

EXAMPLES
   sandbox publish work 8080:80
   sandbox publish work 0:3000 5353:53/udp`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, forwards, err := namedPorts(c)
			if err != nil {
				return err
			}
			if forwards, err = s.Publish(c.Context, forwards); err != nil {
				return fmt.Errorf("publish %s: %w", s.Name, err)
			}
			for _, f := range forwards {
				fmt.Fprintln(c.App.Writer, f)
			}
			return nil
		},
	}
}

func unpublishCommand() *cli.Command {
	return &cli.Command{
		Name:      "unpublish",
		Usage:     "close ports that were published",
		ArgsUsage: "NAME [IP:]HOST:GUEST[/udp]...",
		Description: `The ports are named as sandbox publish prints them, and of a sandbox that does not run
as they were asked for. Connections to them end.

EXAMPLES
   sandbox unpublish work 8080:80`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, forwards, err := namedPorts(c)
			if err != nil {
				return err
			}
			if err := s.Unpublish(c.Context, forwards); err != nil {
				return fmt.Errorf("unpublish %s: %w", s.Name, err)
			}
			return nil
		},
	}
}

// namedPorts reads the name of a sandbox and ports of it.
func namedPorts(c *cli.Context) (*machine.Sandbox, []network.Forward, error) {
	if c.NArg() < 2 {
		return nil, nil, usage("sandbox %s needs the name of a sandbox and ports, such as 8080:80: sandbox port NAME shows them", c.Command.Name)
	}
	forwards, err := readForwards(c.Args().Tail())
	if err != nil {
		return nil, nil, usage("%w", err)
	}
	s, err := sandboxNamed(c.Args().First())
	return s, forwards, err
}

func portCommand() *cli.Command {
	return &cli.Command{
		Name:      "port",
		Usage:     "show which ports of this machine lead to a sandbox",
		ArgsUsage: "NAME [GUEST[/udp]]",
		Description: `Each line is a port of the guest and the address of this machine that leads there, of a
sandbox that runs. With a port of the guest, the addresses alone are printed.

EXAMPLES
   sandbox port work
   curl http://$(sandbox port work 80)/`,
		OnUsageError: usageError,
		Action:       portAction,
	}
}

func portAction(c *cli.Context) error {
	if c.NArg() < 1 || c.NArg() > 2 {
		return usage("sandbox port needs the name of a sandbox, and takes one port of the guest: sandbox ls shows the names")
	}
	s, err := sandboxNamed(c.Args().First())
	if err != nil {
		return err
	}
	wanted := c.Args().Get(1)
	if err := checkGuestPort(wanted); err != nil {
		return err
	}
	state := s.State()
	if !state.Live() {
		return s.NotRunning(state)
	}
	ssh := network.Forward{HostIP: netip.AddrFrom4([4]byte{127, 0, 0, 1}), HostPort: state.SSHPort, GuestPort: 22, Proto: network.TCP}
	found := false
	for _, f := range append([]network.Forward{ssh}, state.Forwards...) {
		port := fmt.Sprintf("%d/%s", f.GuestPort, cmp.Or(f.Proto, network.TCP))
		address := netip.AddrPortFrom(f.HostIP, uint16(f.HostPort))
		switch {
		case f.HostPort == 0: // it has no network, or none yet
		case wanted == "":
			fmt.Fprintf(c.App.Writer, "%s -> %s\n", port, address)
		case wanted == port || wanted+"/"+network.TCP == port:
			found = true
			fmt.Fprintln(c.App.Writer, address)
		}
	}
	if wanted != "" && !found {
		return fmt.Errorf("no port of this machine leads to port %s of %s: sandbox publish %[2]s 0:%[1]s opens one", wanted, s.Name)
	}
	return nil
}

// checkGuestPort tells whether the words are a port of a guest, or empty.
func checkGuestPort(words string) error {
	if words == "" {
		return nil
	}
	_, err := network.ParseForward(strconv.Itoa(1) + ":" + words)
	if err != nil {
		return usage("%q is not a port of a guest, such as 80 or 53/udp", words)
	}
	return nil
}
