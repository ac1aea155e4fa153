package main

import (
	"bufio"
	"context"
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
	"github.com/sourcery-zone/sandbox/network/stack"
)

func netAskCommand() *cli.Command {
	return &cli.Command{
		Name:      "ask",
		Usage:     "answer for what a guest with --net ask wants to reach, or with --ssh-agent ask or --gpg-agent ask:KEY to sign",
		ArgsUsage: "NAME",
		Description: `A connection that no rule opens or closes waits for half a minute, and each is shown until
the sandbox ends. An answer is a line: once (o) for the connections that wait; sandbox (s) to
open it from now on, as sandbox net allow does; project (p) to open it also to each later
sandbox of the same project with --net ask; never (n) to close it, as sandbox net deny does.
It is for the question that waits longest, or with the ID before it for another one.

A project is the directory of the sandbox.toml with which a sandbox was made, or else the first
that it shares. sandbox trust --ls shows what you have opened for each, and sandbox trust --rm
takes it back.

With --ssh-agent ask or --gpg-agent ask:KEY, each use of a key is asked for in the same way, sandbox and never count
until the sandbox ends, and project is no answer.

With --json, each question is a line of JSON, and each answer a line with ID and answer.
Without a terminal, sandbox net answer answers a single one.

EXAMPLES
   sandbox net ask work
   sandbox net ask --json work < answers > questions`,
		Flags:        []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print each question, and its end, as a line of JSON"}},
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			s, err := namedAsking(c)
			if err != nil {
				return err
			}
			a := asker{
				sandbox: s.Name, out: c.App.Writer, json: c.Bool("json"), terminal: isTerminal(os.Stdin) && isTerminal(os.Stdout),
				answer: func(ctx context.Context, id, answer string) error { return answerQuestion(ctx, s, id, answer) },
			}
			return a.run(c.Context, os.Stdin, s)
		},
	}
}

func netAnswerCommand() *cli.Command {
	return &cli.Command{
		Name:      "answer",
		Usage:     "answer one question of a guest with --net ask",
		ArgsUsage: "NAME ID once|sandbox|project|never",
		Description: `sandbox net ask and sandbox events show the questions with their IDs.

EXAMPLES
   sandbox net answer work k3f9ab sandbox`,
		OnUsageError: usageError,
		Action: func(c *cli.Context) error {
			if c.NArg() != 3 {
				return usage("sandbox net answer needs the name of a sandbox, the ID of a question and an answer: " + answersInWords)
			}
			answer, ok := parseAnswer(c.Args().Get(2))
			if !ok {
				return usage("%q is no answer: write %s", c.Args().Get(2), answersInWords)
			}
			s, err := sandboxNamed(c.Args().First())
			if err != nil {
				return err
			}
			return answerQuestion(c.Context, s, c.Args().Get(1), answer)
		},
	}
}

// namedAsking opens a sandbox that runs and may ask.
func namedAsking(c *cli.Context) (*machine.Sandbox, error) {
	s, err := named(c)
	if err != nil {
		return nil, err
	}
	config, err := s.Config()
	if err != nil {
		return nil, err
	}
	if !config.Asks() {
		return nil, fmt.Errorf("the network of %s is %s: only with --net ask, --ssh-agent ask or --gpg-agent ask:KEY is anybody asked, and sandbox net allow %[1]s RULE opens more of an allowlist", s.Name, config.Network)
	}
	if st := s.State(); !st.Live() {
		return nil, s.NotRunning(st)
	}
	return s, nil
}

const answersInWords = "once, sandbox, project or never"

func parseAnswer(word string) (string, bool) {
	for _, answer := range []string{stack.AnswerOnce, stack.AnswerSandbox, answerProject, stack.AnswerNever} {
		if word == answer || word == answer[:1] {
			return answer, true
		}
	}
	return "", false
}

// asker shows questions and reads answers.
type asker struct {
	sandbox  string
	out      io.Writer
	json     bool
	terminal bool
	answer   func(ctx context.Context, id, answer string) error

	open []machine.Question // the one that a bare answer is for is the first
	turn time.Time          // since when it is
}

// hesitation is how long a question has to have been the first one before a bare answer is for it: what is typed was
// meant for the one before, and the guest decides when it asks.
const hesitation = time.Second

// errEnded ends the watch with the sandbox.
var errEnded = errors.New("the sandbox has ended")

// run shows and reads until the sandbox ends or ctx does.
func (a *asker) run(ctx context.Context, in io.Reader, s *machine.Sandbox) error {
	host, err := machine.Open()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lines := make(chan string)
	go func() {
		for r := bufio.NewScanner(in); r.Scan(); {
			select {
			case lines <- r.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	events, ended := make(chan machine.Event), make(chan error, 1)
	go func() {
		ended <- host.Events(ctx, []string{s.Name}, func(e machine.Event) error {
			select {
			case events <- e:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		})
	}()
	if a.terminal && !a.json {
		fmt.Fprintf(a.out, "What %s wants is shown here: answer o (once), s (from now on, for this sandbox), p (for its project) or n (never).\n", a.sandbox)
	}
	for {
		select {
		case e := <-events:
			if err := a.event(e); errors.Is(err, errEnded) {
				return nil
			} else if err != nil {
				return err
			}
		case line := <-lines:
			a.line(ctx, line)
		case err := <-ended:
			return err
		}
	}
}

// event takes what has happened to the sandbox.
func (a *asker) event(e machine.Event) error {
	switch e.Type {
	case machine.EventQuestion:
		if a.open = append(a.open, *e.Question); len(a.open) == 1 {
			a.turn = time.Now()
		}
		return a.show(*e.Question)
	case machine.EventAnswer:
		if len(a.open) > 0 && a.open[0].ID == e.Question.ID {
			a.turn = time.Now()
		}
		a.open = slices.DeleteFunc(a.open, func(q machine.Question) bool { return q.ID == e.Question.ID })
		return a.show(*e.Question)
	case machine.EventStatus, machine.EventRemoved:
		if !(machine.State{Status: e.Status}).Live() {
			return errEnded
		}
	}
	return nil
}

// endings are how a question has ended, in words.
var endings = map[string]string{
	stack.AnswerOnce: "allowed once", stack.AnswerSandbox: "allowed", stack.AnswerNever: "denied", stack.AnswerNone: "refused, as nobody has answered",
}

// asked is what a question is about: a host with its port, or the use of a key.
func asked(q machine.Question) string {
	return strings.TrimPrefix(strings.TrimPrefix(q.What(), "reach "), "use ")
}

func (a *asker) show(q machine.Question) error {
	if a.json {
		return printJSONLine(a.out, q)
	}
	what := fmt.Sprintf("%s  %s  %s", terminal.Line(q.ID), q.Time.Local().Format(time.TimeOnly), terminal.Line(asked(q)))
	if q.Answer != "" {
		_, err := fmt.Fprintf(a.out, "%s: %s\n", what, endings[q.Answer])
		return err
	}
	if q.Reason != "" {
		what += "  (the guest says: " + terminal.Line(q.Reason) + ")"
	}
	choice := "o(nce), s(andbox), p(roject), n(ever)"
	if q.Key != "" {
		choice = "o(nce), s(andbox), n(ever)"
	}
	_, err := fmt.Fprintf(a.out, "%s? %s\n", what, choice)
	return err
}

// line takes a line of the user's: an answer, or an ID and an answer.
func (a *asker) line(ctx context.Context, line string) {
	words := strings.Fields(line)
	id := ""
	switch {
	case len(words) == 0:
		return
	case len(words) == 2:
		id, words = words[0], words[1:]
	case len(words) == 1 && len(a.open) > 0 && !a.json && time.Since(a.turn) < hesitation:
		fmt.Fprintf(notes(), "sandbox: %s is asked for only now: answer again if you mean it\n", terminal.Line(asked(a.open[0])))
		return
	case len(words) == 1 && len(a.open) > 0 && !a.json:
		id = a.open[0].ID
	case len(words) == 1 && !a.json:
		fmt.Fprintln(notes(), "sandbox: no question is open")
		return
	}
	answer, ok := parseAnswer(words[0])
	if !ok || id == "" {
		fmt.Fprintf(notes(), "sandbox: %q is no answer: write %s, and the ID of a question before it\n", line, answersInWords)
		return
	}
	if err := a.answer(ctx, id, answer); err != nil {
		fmt.Fprintf(notes(), "sandbox: %s\n", sentences(err))
	}
}
