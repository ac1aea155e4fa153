package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/qmp"
	"github.com/sourcery-zone/sandbox/qmp/libvirt"
)

// Exit codes of qmp, beside those of all commands.
const (
	exitRefused    = 3 // QEMU refused a command, or a job failed
	exitUnexpected = 4 // a script found other than it expected
	exitTimeout    = 5 // a step took too long
)

func qmpCommand() *cli.Command {
	return &cli.Command{
		Name:      "qmp",
		Usage:     "send commands to the QEMU of a sandbox",
		ArgsUsage: "NAME [COMMAND [KEY=VALUE... | JSON]]",
		Description: `COMMAND is one of QEMU's machine protocol; its result is printed as JSON. A VALUE
is JSON where it can be, and a string otherwise; a dot in KEY makes an object
(a.b=1). A job is followed to its end. With --file, a script is run; with
--events, events are printed as they come; with neither and without COMMAND,
there is a prompt. docs/qmp.md has the language of scripts.

Commands that reach beyond the sandbox need --unsafe. The exit code is 3 when
QEMU refuses a command or a job fails, 4 when a script finds other than it
expects, 5 after a time-out, 2 for what is wrong before anything is sent, and 1
for all else.

EXAMPLES
   sandbox qmp work query-status
   sandbox qmp work send-key 'keys=[{"type":"qcode","data":"ret"}]'
   sandbox qmp --file save.qmp --var tag=before work
   sandbox qmp --events work | jq .event
   sandbox qmp --libvirt qemu:///system debian12 query-block`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "file", Usage: "run the script in `FILE` (- for standard input) and print a line of JSON for each step"},
			&cli.StringSliceFlag{Name: "var", Usage: "set `NAME=VALUE` for the script; repeatable"},
			&cli.BoolFlag{Name: "events", Usage: "print events as JSON lines until Ctrl-C or the end of QEMU"},
			&cli.BoolFlag{Name: "raw", Usage: "connect standard input and output to the monitor, for other programs that speak QMP"},
			&cli.DurationFlag{Name: "timeout", Value: time.Minute, Usage: "how long a command, or a step without a time of its own, may take"},
			&cli.BoolFlag{Name: "unsafe", Usage: "allow commands that reach beyond the sandbox"},
			&cli.StringFlag{Name: "libvirt", Usage: "NAME is a domain of the libvirt at `URI`"},
		},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			job, err := parseQMP(c)
			if err != nil {
				return usage("%w", err)
			}
			return qmpExit(job.run(c))
		},
	}
}

// qmpJob is what the command line asks for: a script, one command as a script, events, or a prompt.
type qmpJob struct {
	script    *qmp.Script
	variables map[string]any
	single    bool
	events    bool
	raw       bool
}

// parseQMP finds all that is wrong with the command line before anything is connected.
func parseQMP(c *cli.Context) (*qmpJob, error) {
	args := c.Args().Slice()
	job := &qmpJob{events: c.Bool("events"), raw: c.Bool("raw"), single: len(args) > 1}
	var modes int
	for _, chosen := range []bool{c.IsSet("file"), job.events, job.raw, job.single} {
		if chosen {
			modes++
		}
	}
	var err error
	switch {
	case len(args) == 0:
		return nil, errors.New("sandbox qmp needs the name of a sandbox: sandbox ls shows them")
	case modes > 1:
		return nil, errors.New("sandbox qmp takes one of COMMAND, --file, --events and --raw")
	case job.raw && c.IsSet("libvirt"):
		return nil, errors.New("--raw is for sandboxes: libvirt's protocol is another one")
	case c.IsSet("var") && !c.IsSet("file"):
		return nil, errors.New("--var is for scripts: it goes with --file")
	case c.Duration("timeout") <= 0:
		return nil, fmt.Errorf("--timeout is %v, but must be more than nothing", c.Duration("timeout"))
	case modes == 0 && !(isTerminal(os.Stdin) && isTerminal(os.Stdout)):
		return nil, errors.New("the prompt needs a terminal: give a COMMAND, or a script with --file (- for standard input)")
	case c.IsSet("file"):
		if job.variables, err = parseVars(c.StringSlice("var")); err != nil {
			return nil, err
		}
		job.script, err = readScript(c.String("file"), job.variables)
	case job.single:
		var step qmp.Step
		step, err = parseQMPCommand(args[1], args[2:])
		job.script = &qmp.Script{Steps: []qmp.Step{step}}
	}
	if err == nil && job.script != nil {
		err = checkDanger(job.script, c.Bool("unsafe"))
	}
	return job, err
}

func checkDanger(script *qmp.Script, allowed bool) error {
	if err := script.Danger(); err != nil && !allowed {
		return fmt.Errorf("%w: --unsafe allows it", err)
	}
	return nil
}

func parseVars(settings []string) (map[string]any, error) {
	variables := map[string]any{}
	for _, setting := range settings {
		name, value, ok := strings.Cut(setting, "=")
		if !ok || !validVariable(name) {
			return nil, fmt.Errorf("--var is %q, but must be NAME=VALUE with a name of letters, digits and underscores", setting)
		}
		variables[name] = qmpValue(value)
	}
	return variables, nil
}

func readScript(path string, variables map[string]any) (*qmp.Script, error) {
	in, name := io.Reader(os.Stdin), "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--file: %w", err)
		}
		defer f.Close()
		in, name = f, path
	}
	var names []string
	for v := range variables {
		names = append(names, v)
	}
	return qmp.ParseScript(name, in, names)
}

// parseQMPCommand reads a command as qmp-shell does.
func parseQMPCommand(name string, words []string) (qmp.Step, error) {
	step := qmp.Step{Execute: name}
	if len(words) == 1 && strings.HasPrefix(words[0], "{") {
		in := json.NewDecoder(strings.NewReader(words[0]))
		in.UseNumber()
		if err := in.Decode(&step.Arguments); err != nil || in.InputOffset() != int64(len(words[0])) {
			return step, fmt.Errorf("the arguments of %s are no JSON object: %s", name, words[0])
		}
		return literal(step), nil
	}
	for _, word := range words {
		key, value, ok := strings.Cut(word, "=")
		if !ok || key == "" {
			return step, fmt.Errorf("%q is no argument of %s: write KEY=VALUE, or one JSON object with all of them", word, name)
		}
		if step.Arguments == nil {
			step.Arguments = map[string]any{}
		}
		if err := setArgument(step.Arguments, key, qmpValue(value)); err != nil {
			return step, err
		}
	}
	return literal(step), nil
}

// setArgument makes the objects that the dots in key ask for.
func setArgument(object map[string]any, key string, value any) error {
	parts := strings.Split(key, ".")
	last := len(parts) - 1
	for i, part := range parts[:last] {
		if object[part] == nil {
			object[part] = map[string]any{}
		}
		inner, ok := object[part].(map[string]any)
		if !ok {
			return fmt.Errorf("%s is given a value, and %s one within it", strings.Join(parts[:i+1], "."), key)
		}
		object = inner
	}
	if _, twice := object[parts[last]]; twice {
		return fmt.Errorf("%s is given twice", key)
	}
	object[parts[last]] = value
	return nil
}

// qmpValue is JSON where text is JSON, and text otherwise.
func qmpValue(text string) any {
	in := json.NewDecoder(strings.NewReader(text))
	in.UseNumber()
	var value any
	if err := in.Decode(&value); err != nil || in.InputOffset() != int64(len(text)) {
		return text
	}
	return value
}

// literal makes dollars mean themselves: outside of a script there are no variables.
func literal(step qmp.Step) qmp.Step {
	step.Arguments, _ = escapeDollars(step.Arguments).(map[string]any)
	return step
}

func escapeDollars(value any) any {
	switch v := value.(type) {
	case string:
		return strings.ReplaceAll(v, "$", "$$")
	case map[string]any:
		for name := range v {
			v[name] = escapeDollars(v[name])
		}
	case []any:
		for i := range v {
			v[i] = escapeDollars(v[i])
		}
	}
	return value
}

func (j *qmpJob) run(c *cli.Context) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	if j.raw {
		return rawQMP(ctx, c)
	}
	client, err := dialQMP(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	switch {
	case j.events:
		return printEvents(c.Context, client, c.App.Writer)
	case j.script == nil:
		return newQMPPrompt(client, c).run(c.Context)
	}
	o := qmp.RunOptions{Variables: j.variables, Timeout: c.Duration("timeout")}
	o.Report = func(step qmp.Step, result any) { _ = printJSONLine(c.App.Writer, stepReport(step, result)) }
	if j.single {
		o.Report = func(_ qmp.Step, result any) { _ = printJSON(c.App.Writer, result) }
	}
	return j.script.Run(c.Context, client, o)
}

func dialQMP(ctx context.Context, c *cli.Context) (*qmp.Client, error) {
	name := c.Args().First()
	if uri := c.String("libvirt"); uri != "" {
		return libvirt.Dial(ctx, uri, name, qmp.Options{})
	}
	s, err := qmpSandbox(name)
	if err != nil {
		return nil, err
	}
	return s.DialQMP(ctx, c.Bool("unsafe"))
}

func qmpSandbox(name string) (*machine.Sandbox, error) {
	host, err := machine.Open()
	if err != nil {
		return nil, err
	}
	return host.Get(name)
}

// rawQMP leaves the conversation to whoever has our standard streams.
func rawQMP(ctx context.Context, c *cli.Context) error {
	s, err := qmpSandbox(c.Args().First())
	if err != nil {
		return err
	}
	conn, err := s.DialMonitor(ctx, c.Bool("unsafe"))
	if err != nil {
		return err
	}
	defer conn.Close()
	return splice(conn, os.Stdin, os.Stdout)
}

// stepReport is what a script's step printed.
func stepReport(step qmp.Step, result any) any {
	report := struct {
		Line    int    `json:"line"`
		Execute string `json:"execute,omitempty"`
		Event   string `json:"event,omitempty"`
		Job     string `json:"job,omitempty"`
		Return  any    `json:"return,omitempty"`
		Data    any    `json:"data,omitempty"`
		Error   any    `json:"error,omitempty"`
	}{Line: step.Line, Execute: step.Execute, Event: step.WaitEvent, Job: step.WaitJob}
	switch {
	case step.ExpectError != "":
		report.Error = result
	case step.WaitEvent != "":
		report.Data = result
	default:
		report.Return = result
	}
	return report
}

// printEvents ends in order with ctx, which Ctrl-C ends, and with QEMU.
func printEvents(ctx context.Context, client *qmp.Client, w io.Writer) error {
	events, err := client.Events(ctx)
	if err != nil {
		return err
	}
	for e := range events {
		if err := printJSONLine(w, e); err != nil {
			return err
		}
	}
	if ctx.Err() == nil && client.Err() != nil && !errors.Is(client.Err(), io.EOF) {
		return client.Err()
	}
	return nil
}

// qmpExit gives each kind of failure its code.
func qmpExit(err error) error {
	var (
		refused *qmp.Error
		failed  *qmp.JobError
	)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, qmp.ErrUnexpected):
		return &exitCode{exitUnexpected, err}
	case errors.As(err, &refused), errors.As(err, &failed):
		return &exitCode{exitRefused, err}
	case errors.Is(err, context.DeadlineExceeded):
		return &exitCode{exitTimeout, err}
	}
	return err
}

// startingWith returns those of QEMU's words that begin with beginning. It leaves
// out what a terminal would obey: only a QEMU that was taken over has such words.
func startingWith(words []string, beginning string) []string {
	return slices.DeleteFunc(slices.Clone(words), func(w string) bool {
		return !strings.HasPrefix(w, beginning) || terminal.Line(w) != w
	})
}
