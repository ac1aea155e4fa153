package main

import (
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qemu"
	"github.com/sourcery-zone/sandbox/virtiofs"
	"github.com/sourcery-zone/sandbox/virtiofs/gate"
	"github.com/sourcery-zone/sandbox/virtiofs/rules"
)

func auditCommand() *cli.Command {
	return &cli.Command{
		Name:      "audit",
		Usage:     "show what a guest made, wrote, renamed and removed in shares, and what it was refused",
		ArgsUsage: "NAME",
		Description: `A line for each change of a name or mode, for each time that a file was opened to be
written, and for everything that a rule was against. The log keeps the last 8 to 16 MiB, from
the last start on and of the one before. Shares with rules=none are not in it, nor is the
guest's home.

EXAMPLES
   sandbox audit work
   sandbox audit -f --denied work
   sandbox audit --json work | jq -r 'select(.verb == "remove").path'`,
		Flags:        entryFlags(),
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := named(c)
			if err != nil {
				return err
			}
			show := func(e machine.AuditEntry) error { return printJSONLine(c.App.Writer, e) }
			if !c.Bool("json") {
				fmt.Fprintf(c.App.Writer, auditLine, "TIME", "ACTION", "VERDICT", "PATH")
				show = func(e machine.AuditEntry) error { return printAudit(c.App.Writer, e) }
			}
			return s.AuditLog(c.Context, c.Bool("follow"), func(e machine.AuditEntry) error {
				if c.Bool("denied") && e.Refused == "" && e.LeftOut == 0 {
					return nil
				}
				return show(e)
			})
		},
	}
}

const auditLine = "%-19s  %-8s  %-8s  %s\n"

// printAudit prints an entry as a row. The names in it are a guest's words.
func printAudit(w io.Writer, e machine.AuditEntry) error {
	when := e.Time.Local().Format(time.DateTime)
	if e.LeftOut > 0 {
		_, err := fmt.Fprintf(w, "%-19s  %d more were not recorded, because the disk was too slow\n", when, e.LeftOut)
		return err
	}
	verdict, what := "done", terminal.Line(filepath.Join(e.Share, e.Path))
	if e.To != "" {
		what += " → " + terminal.Line(e.To)
	}
	if e.Refused != "" {
		verdict = "refused"
		what += fmt.Sprintf("  (rule %s: %s)", terminal.Line(e.Rule), terminal.Line(e.Reason))
	}
	_, err := fmt.Fprintf(w, auditLine, when, terminal.Line(string(e.Verb)), verdict, what)
	return err
}

// refusalReason says what a rule for a share was against, and how to allow it.
func refusalReason(r machine.Refusal) string {
	by, remedy := " by the rule "+r.Rule, ""
	switch r.Rule {
	case gate.RuleQuota:
		by, remedy = "", "remove what is not needed, or share it with a larger quota="
	case rules.RuleDevice, rules.RuleSetID:
		remedy = "no option allows it; a copy-on-write share keeps such things to the guest"
	default:
		remedy = fmt.Sprintf("to allow it, give the share the option %s (sandbox share rules lists all rules)", qemu.ShellQuote([]string{virtiofs.AllowOption(r.Path)}))
	}
	return fmt.Sprintf("%s in %s of %s was refused%s, because %s: %s", r.Verb, r.Share, qemu.ShellQuote([]string{r.Path}), by, r.Reason, remedy)
}
