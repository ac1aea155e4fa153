package main

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network"
)

func publishCommand() *cli.Command {
	return &cli.Command{
		Name:      "publish",
		Usage:     "forward ports of this machine to a sandbox",
		ArgsUsage: "NAME [IP:]HOST:GUEST[/udp]|auto...",
		Description: `The ports are those of run --publish, for a sandbox that is there already. One that
runs has them at once, and both have them at each later start. The host's port 0 stands
for any that is free. What was opened is printed. The word auto stands for each TCP port
that a program in the guest listens on, as sandbox port and sandbox events show them.

EXAMPLES
   sandbox publish work 8080:80
   sandbox publish work auto
   sandbox publish work 0:3000 5353:53/udp`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, forwards, auto, err := namedPorts(c)
			if err != nil {
				return err
			}
			if len(forwards) > 0 {
				forwards, err = s.Publish(c.Context, forwards)
			}
			if err == nil && auto {
				err = s.AutoPublish(c.Context, true)
			}
			if err != nil {
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
		ArgsUsage: "NAME [IP:]HOST:GUEST[/udp]|auto...",
		Description: `The ports are named as sandbox publish prints them, and of a sandbox that does not run
as they were asked for. Connections to them end. The word auto takes back publish auto.

EXAMPLES
   sandbox unpublish work 8080:80`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, forwards, auto, err := namedPorts(c)
			if err != nil {
				return err
			}
			if len(forwards) > 0 {
				err = s.Unpublish(c.Context, forwards)
			}
			if err == nil && auto {
				err = s.AutoPublish(c.Context, false)
			}
			if err != nil {
				return fmt.Errorf("unpublish %s: %w", s.Name, err)
			}
			return nil
		},
	}
}

// namedPorts reads the name of a sandbox and ports of it, among which may be those on which
// the guest listens.
func namedPorts(c *cli.Context) (s *machine.Sandbox, forwards []network.Forward, auto bool, err error) {
	if c.NArg() < 2 {
		return nil, nil, false, usage("sandbox %s needs the name of a sandbox and ports, such as 8080:80: sandbox port NAME shows them", c.Command.Name)
	}
	specs := c.Args().Tail()
	auto = slices.Contains(specs, autoPublish)
	if forwards, err = readForwards(slices.DeleteFunc(specs, isAutoPublish)); err != nil {
		return nil, nil, false, usage("%w", err)
	}
	s, err = sandboxNamed(c.Args().First())
	return s, forwards, auto, err
}

func portCommand() *cli.Command {
	return &cli.Command{
		Name:      "port",
		Usage:     "show which ports of this machine lead to a sandbox",
		ArgsUsage: "NAME [GUEST[/udp]]",
		Description: `Each line is a port of the guest and the address of this machine that leads there, of a
sandbox that runs. With a port of the guest, the addresses alone are printed. On which
other ports programs in the guest listen is told apart from that, as notes.

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
	for _, f := range slices.Concat([]network.Forward{ssh}, state.Forwards, autoForwards(state)) {
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
	if wanted == "" {
		noteUnpublished(s, state)
	}
	if wanted != "" && !found {
		return fmt.Errorf("no port of this machine leads to port %s of %s: sandbox publish %[2]s 0:%[1]s opens one", wanted, s.Name)
	}
	return nil
}

// autoForwards are the ports that are published because the guest listens on them.
func autoForwards(state machine.State) (forwards []network.Forward) {
	for _, p := range state.Ports {
		if p.Published.IsValid() {
			forwards = append(forwards, network.Forward{HostIP: p.Published.Addr(), HostPort: int(p.Published.Port()), GuestPort: int(p.Number), Proto: network.TCP})
		}
	}
	return forwards
}

// publishedInWords says in one line where ports answer that were published because the
// guest listens on them.
func publishedInWords(state machine.State) string {
	const most = 5
	var words []string
	for _, p := range state.Ports {
		if !p.Published.IsValid() {
			continue
		}
		if len(words) == most {
			words = append(words, "and more, which sandbox port shows")
			break
		}
		words = append(words, fmt.Sprintf("%s at %s", cmp.Or(p.Program, fmt.Sprintf("port %d", p.Number)), p.Published))
	}
	return strings.Join(words, ", ")
}

// noteUnpublished tells, beside the output that scripts read, on which ports the guest
// listens to which nothing leads.
func noteUnpublished(s *machine.Sandbox, state machine.State) {
	for _, p := range state.Ports {
		published := p.Published.IsValid() || slices.ContainsFunc(state.Forwards, func(f network.Forward) bool {
			return f.GuestPort == int(p.Number) && f.Proto != network.UDP
		})
		if !published {
			fmt.Fprintf(notes(), "sandbox: %s of %s listens on port %d, which is not published: sandbox publish %[2]s 0:%[3]d opens it\n", cmp.Or(p.Program, "a program"), s.Name, p.Number)
		}
	}
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
