package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/stack"
	"github.com/sourcery-zone/sandbox/qemu"
)

func netLogCommand() *cli.Command {
	return &cli.Command{
		Name:      "log",
		Usage:     "show what a guest connected to and looked up, and what was refused",
		ArgsUsage: "NAME",
		Description: `A line for each connection, flow of datagrams and lookup that has ended or was refused,
with the rule that decided. Refusals that are the same are counted for some seconds and
then shown as one, and of a flood, a part is left out. The log keeps the last 8 to 16 MiB.

EXAMPLES
   sandbox net log work
   sandbox net log -f --denied work
   sandbox net log --json --denied work | jq -r '.name // .address' | sort -u`,
		Flags:        entryFlags(),
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := named(c)
			if err != nil {
				return err
			}
			show := func(e gateway.Entry) error { return printJSONLine(c.App.Writer, e) }
			if !c.Bool("json") {
				fmt.Fprintf(c.App.Writer, entryLine, "TIME", "PROTO", "DECISION", "SENT", "RECEIVED", "DURATION", "DESTINATION", "RULE")
				show = func(e gateway.Entry) error { return printEntry(c.App.Writer, e) }
			}
			return s.NetworkLog(c.Context, c.Bool("follow"), func(e gateway.Entry) error {
				if c.Bool("denied") && e.Decision != gateway.DecisionRefused && e.Message != gateway.MessageLeftOut {
					return nil
				}
				return show(e)
			})
		},
	}
}

// entryFlags are those of the commands that show what a guest did and was refused.
func entryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the sandbox ends"},
		&cli.BoolFlag{Name: "json", Usage: "print each entry as a line of JSON"},
		&cli.BoolFlag{Name: "denied", Usage: "show only what was refused"},
	}
}

const entryLine = "%-19s  %-5s  %-8s  %8s  %8s  %8s  %-40s  %s\n"

// printEntry prints an entry as a row. What is in it may be a guest's words, or those of somebody who has taken over the
// network's process.
func printEntry(w io.Writer, e gateway.Entry) error {
	when := ""
	if !e.Time.IsZero() {
		when = e.Time.Local().Format(time.DateTime)
	}
	if e.Message != gateway.MessageConnection {
		text := terminal.Line(e.Message)
		if e.Count > 0 {
			text += fmt.Sprintf(" (%d)", e.Count)
		}
		if e.Err != "" {
			text += ": " + terminal.Line(e.Err)
		}
		_, err := fmt.Fprintf(w, "%-19s  %s\n", when, text)
		return err
	}
	rule := terminal.Line(e.Rule)
	if e.Request != "" {
		rule += ": " + terminal.Line(e.Request)
	}
	if e.Count > 1 {
		rule += fmt.Sprintf(" (%d times)", e.Count)
	}
	_, err := fmt.Fprintf(w, entryLine, when, terminal.Line(e.Proto), terminal.Line(e.Decision), strconv.FormatInt(e.Sent, 10), strconv.FormatInt(e.Received, 10),
		e.Duration.Round(time.Millisecond), destinationOf(e), rule)
	return err
}

// destinationOf is what an entry is about.
func destinationOf(e gateway.Entry) string {
	host := terminal.Line(e.Name)
	if host == "" {
		host = terminal.Line(e.Address)
	}
	if e.Port != 0 {
		host = net.JoinHostPort(host, strconv.Itoa(int(e.Port)))
	}
	return host
}

// session runs a command, and tells a person then what the guest was refused meanwhile, by the network and by rules of its
// shares. The sandbox stays if it is not to be removed afterwards.
func (k *command) session(ctx context.Context, s *machine.Sandbox, stays bool) error {
	if !k.tty || !isTerminal(os.Stderr) {
		return k.run(ctx, s)
	}
	since := time.Now()
	refused := refusals{since: since}
	log, unread := s.TailNetworkLog()
	if unread == nil {
		defer log.Close()
	}
	err := k.run(ctx, s)
	if unread == nil && log.Read(refused.add) == nil {
		more := refused.opening()
		if stays {
			more = "sandbox net log --denied " + s.Name + " shows it"
		}
		tellRefused("the network", refused.String(), more)
	}
	more := ""
	if stays {
		more = "sandbox audit --denied " + s.Name + " shows it"
	}
	tellRefused("rules of shares", several(refusedFiles(s.State().Refusals, since)), more)
	return err
}

// tellRefused prints what was refused and by whom, if anything was, and what more there is to say.
func tellRefused(by, what, more string) {
	switch {
	case what == "":
	case more != "":
		fmt.Fprintf(notes(), "sandbox: %s refused %s: %s\n", by, what, more)
	default:
		fmt.Fprintf(notes(), "sandbox: %s refused %s\n", by, what)
	}
}

// refusedFiles are the files of shares that the guest was kept from since then, each once, in a guest's words.
func refusedFiles(all []machine.Refusal, since time.Time) (files []string) {
	for _, r := range all {
		file := terminal.Line(filepath.Join(r.Share, r.Path))
		if !r.Time.Before(since) && !slices.Contains(files, file) {
			files = append(files, file)
		}
	}
	return files
}

// refusals are the destinations that entries from a time on were refused, those of connections before lookups, each once,
// and the rules that would have opened some of them.
type refusals struct {
	since               time.Time
	hosts, names, rules []string
}

func (r *refusals) add(e gateway.Entry) error {
	if e.Decision != gateway.DecisionRefused || e.Time.Before(r.since) {
		return nil
	}
	to := &r.hosts
	if e.Proto == "dns" {
		to = &r.names
	}
	if host := destinationOf(e); !slices.Contains(*to, host) {
		*to = append(*to, host)
	}
	if rule := ruleOpening(e); rule != "" && !slices.Contains(r.rules, rule) {
		r.rules = append(r.rules, rule)
	}
	return nil
}

// ruleOpening returns the rule by which a connection would have been open, if one is sure to do that.
func ruleOpening(e gateway.Entry) string {
	unlisted := e.Rule == policy.RuleNotAllowed || e.Rule == stack.RuleNotAnswered
	if !unlisted && (!policy.IsAround(e.Rule) || e.Name != "") {
		return ""
	}
	rule := policy.RuleFor(cmp.Or(e.Name, e.Address), e.Port)
	if _, err := policy.ParseRule(rule); err != nil || e.Proto != string(policy.TCP) {
		return ""
	}
	return rule
}

// opening says how another sandbox is made that is refused less, or nothing if no rule does it.
func (r *refusals) opening() string {
	if len(r.rules) == 0 {
		return ""
	}
	var flags []string
	for _, rule := range r.rules[:min(len(r.rules), mostRefusals)] {
		flags = append(flags, "--allow", rule)
	}
	return "another run opens it with " + qemu.ShellQuote(flags)
}

// mostRefusals is how many are named in a line.
const mostRefusals = 3

// String says what was refused, or nothing if nothing was.
func (r *refusals) String() string {
	all := r.hosts
	for _, name := range r.names {
		if !slices.ContainsFunc(r.hosts, func(host string) bool { return strings.HasPrefix(host, name+":") }) {
			all = append(all, name)
		}
	}
	return several(all)
}

// several names the first few, and is empty for none.
func several(all []string) string {
	text := strings.Join(all[:min(len(all), mostRefusals)], ", ")
	if more := len(all) - mostRefusals; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
