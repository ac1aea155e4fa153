package main

import (
	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
)

func eventsCommand() *cli.Command {
	return &cli.Command{
		Name:      "events",
		Usage:     "print what happens to sandboxes as JSON lines",
		ArgsUsage: "[NAME...]",
		Description: `The sandboxes that there are come first, with the type "exists"; then a line for
each that is created, renamed or removed, changes its status, reaches a stage of its
start, has a share that is replaced on this machine, has a program that begins or ceases
to listen on a TCP port, asks for something with --net ask and is answered, or is kept
from something in a share by a rule, until Ctrl-C. With NAME, only these are shown, also those that are yet to be made.

EXAMPLES
   sandbox events
   sandbox events | jq 'select(.status == "crashed")'
   sandbox events work | grep -m1 '"status":"running"'
   sandbox events work | jq 'select(.type == "port-opened").port'
   sandbox events work | jq -r 'select(.type == "refused").reason'`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			host, err := machine.Open()
			if err != nil {
				return err
			}
			return host.Events(c.Context, c.Args().Slice(), func(e machine.Event) error {
				if e.Refusal != nil {
					e.Reason = refusalReason(*e.Refusal)
				}
				return printJSONLine(c.App.Writer, e)
			})
		},
	}
}
