package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/machine/api"
	"github.com/sourcery-zone/sandbox/network"
)

func netAllowCommand() *cli.Command {
	return &cli.Command{
		Name:      "allow",
		Usage:     "open something to a guest",
		ArgsUsage: "NAME RULE...",
		Description: `The rules are those of run --allow, for a sandbox that is there already: one that runs has
them at once, and both have them at each later start. A rule that was denied is denied no
longer; one that denies more still counts. In the public network, rules open addresses that
are nearer than the Internet.

EXAMPLES
   sandbox net allow work registry.npmjs.org '*.example.com:8443'
   sandbox net allow work 10.1.0.0/16:5432`,
		OnUsageError: usageError,
		Action:       changeRules(func(rules []string) api.RuleChange { return api.RuleChange{Allow: rules} }),
	}
}

func netDenyCommand() *cli.Command {
	return &cli.Command{
		Name:      "deny",
		Usage:     "close something to a guest, whatever opens it",
		ArgsUsage: "NAME RULE...",
		Description: `The rules are written as those of sandbox net allow. One without a port closes all ports, of
all protocols. It counts more than any rule that opens, and connections that it closes
end. A rule that was allowed is taken back.

EXAMPLES
   sandbox net deny work telemetry.example.com
   sandbox net deny work 203.0.113.0/24`,
		OnUsageError: usageError,
		Action:       changeRules(func(rules []string) api.RuleChange { return api.RuleChange{Deny: rules} }),
	}
}

func netResetCommand() *cli.Command {
	return &cli.Command{
		Name:      "reset",
		Usage:     "take back what was allowed and denied since a sandbox was made",
		ArgsUsage: "NAME",
		Description: `Connections that no rule opens any more end.

EXAMPLES
   sandbox net reset work`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := named(c)
			if err != nil {
				return err
			}
			return s.ChangeRules(c.Context, api.RuleChange{Reset: true})
		},
	}
}

func changeRules(change func(rules []string) api.RuleChange) cli.ActionFunc {
	return func(c *cli.Context) error {
		if c.NArg() < 2 {
			return usage("sandbox net %s needs the name of a sandbox and rules, such as api.example.com: sandbox net ls NAME shows those that it has", c.Command.Name)
		}
		s, err := sandboxNamed(c.Args().First())
		if err != nil {
			return err
		}
		return s.ChangeRules(c.Context, change(c.Args().Tail()))
	}
}

// rule is one of a sandbox's network.
type rule struct {
	Decision string `json:"decision"` // allow or deny
	Rule     string `json:"rule"`
	From     string `json:"from"` // ruleMade, ruleAdded, ruleHostPort, or the preset whose rule it is
}

const (
	ruleMade  = "made with" // the sandbox was
	ruleAdded = "added"     // since

	ruleHostPort = "port of this machine" // which is open by no rule
)

func netLsCommand() *cli.Command {
	return &cli.Command{
		Name:      "ls",
		Usage:     "show the rules of a guest's network, and where they come from",
		ArgsUsage: "NAME",
		Description: `Rules are those with which the sandbox was made, and those that were added since; the ports
of this machine that are open to it are beside them. What no rule is about, the network's
mode decides, which comes first.

EXAMPLES
   sandbox net ls work
   sandbox net ls --json work`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print the mode and the rules as JSON"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := named(c)
			if err != nil {
				return err
			}
			config, err := s.Config()
			if err != nil {
				return err
			}
			rules := rulesOf(config)
			if c.Bool("json") {
				return printJSON(c.App.Writer, struct {
					Network network.Mode `json:"network"`
					Rules   []rule       `json:"rules"`
				}{config.Network, rules})
			}
			fmt.Fprintf(c.App.Writer, "The network of %s is %s.\n", s.Name, config.Network)
			if len(rules) == 0 {
				return nil
			}
			t := table{rows: [][]string{{"DECISION", "RULE", "FROM"}}}
			for _, r := range rules {
				t.rows = append(t.rows, []string{r.Decision, r.Rule, r.From})
			}
			return t.write(c.App.Writer, 0)
		},
	}
}

func rulesOf(c machine.Config) []rule {
	rules := []rule{}
	add := func(decision, from string, texts []string) {
		for _, text := range texts {
			rules = append(rules, rule{decision, text, from})
		}
	}
	add("deny", ruleMade, c.StillDenied())
	add("deny", ruleAdded, c.Denied)
	add("allow", ruleMade, c.Allow)
	add("allow", ruleAdded, c.Allowed)
	for _, port := range c.HostPorts {
		add("allow", ruleHostPort, []string{port.Address()})
	}
	for _, preset := range slices.Sorted(maps.Keys(c.Registries)) {
		add("allow", "preset:"+preset, c.Registries[preset])
	}
	return rules
}
