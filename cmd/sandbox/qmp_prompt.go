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
	"golang.org/x/term"

	"github.com/sourcery-zone/sandbox/internal/terminal"
	"github.com/sourcery-zone/sandbox/qmp"
)

// qmpPrompt reads commands from the terminal.
type qmpPrompt struct {
	client   *qmp.Client
	schema   *qmp.Schema
	terminal *term.Terminal
	timeout  time.Duration
	unsafe   bool
}

func newQMPPrompt(client *qmp.Client, c *cli.Context) *qmpPrompt {
	p := &qmpPrompt{client: client, timeout: c.Duration("timeout"), unsafe: c.Bool("unsafe")}
	p.terminal = term.NewTerminal(struct {
		io.Reader
		io.Writer
	}{os.Stdin, os.Stdout}, c.Args().First()+"> ")
	p.terminal.AutoCompleteCallback = p.complete
	return p
}

// run reads and answers until Ctrl-D or the end of QEMU.
func (p *qmpPrompt) run(ctx context.Context) error {
	var err error
	if p.schema, err = p.client.Schema(ctx); err != nil {
		return err
	}
	fd := int(os.Stdin.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(fd, old) }()
	if width, height, err := term.GetSize(fd); err == nil {
		_ = p.terminal.SetSize(width, height)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := p.client.Events(ctx)
	if err != nil {
		return err
	}
	go func() {
		for e := range events {
			p.print("event: ", e)
		}
	}()
	fmt.Fprintf(p.terminal, "QEMU %s. Tab completes, Ctrl-D leaves.\n", p.client.Greeting().Version)
	lines := make(chan string)
	go func() { // a read from the terminal cannot be interrupted, and ends with the program
		defer close(lines)
		for {
			line, err := p.terminal.ReadLine()
			if err != nil && !errors.Is(err, term.ErrPasteIndicator) {
				return
			}
			lines <- line
		}
	}()
	for {
		select {
		case line, more := <-lines:
			if !more {
				return nil
			}
			if strings.TrimSpace(line) != "" {
				p.answer(ctx, line)
			}
		case <-p.client.Done():
			return p.client.Err()
		}
	}
}

func (p *qmpPrompt) answer(ctx context.Context, line string) {
	script, err := parseQMPLine(line)
	if err == nil {
		err = checkDanger(script, p.unsafe)
	}
	if err == nil {
		report := func(_ qmp.Step, result any) { p.print("", result) }
		err = script.Run(ctx, p.client, qmp.RunOptions{Timeout: p.timeout, Report: report})
	}
	if err != nil {
		fmt.Fprintln(p.terminal, terminal.Text(sentences(err)))
	}
}

func (p *qmpPrompt) print(before string, value any) {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		text = []byte(sentences(err))
	}
	fmt.Fprintf(p.terminal, "%s%s\n", before, terminal.JSON(text))
}

// parseQMPLine reads a command as it is written after "sandbox qmp NAME", or as QEMU's own JSON.
func parseQMPLine(line string) (*qmp.Script, error) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "{") {
		script, err := qmp.ParseScript("", strings.NewReader(line), nil)
		if err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), ":1: "))
		}
		return script, nil
	}
	words := splitWords(line)
	step, err := parseQMPCommand(words[0], words[1:])
	return &qmp.Script{Steps: []qmp.Step{step}}, err
}

// splitWords splits at spaces that are not within JSON: no shell has removed the quotes before us.
func splitWords(line string) []string {
	var (
		words           []string
		depth           int
		quoted, escaped bool
	)
	between := true
	for _, r := range line {
		switch {
		case escaped:
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted = !quoted
		case quoted:
		case strings.ContainsRune("[{", r):
			depth++
		case strings.ContainsRune("]}", r):
			depth--
		case depth == 0 && (r == ' ' || r == '\t'):
			between = true
			continue
		}
		if between {
			words = append(words, "")
			between = false
		}
		words[len(words)-1] += string(r)
	}
	return words
}

// complete answers the Tab key with the next part that all possible words share, and with the words
// if there are several.
func (p *qmpPrompt) complete(line string, pos int, key rune) (string, int, bool) {
	if key != '\t' {
		return "", 0, false
	}
	start := strings.LastIndexByte(line[:pos], ' ') + 1
	words := p.candidates(line[:start], line[start:pos])
	if len(words) == 0 {
		return line, pos, true
	}
	shared := sharedBeginning(words)
	if len(words) == 1 && !strings.HasSuffix(shared, "=") {
		shared += " "
	}
	if start+len(shared) == pos { // nothing to add
		fmt.Fprintln(p.terminal, strings.Join(words, "  "))
	}
	return line[:start] + shared + line[pos:], start + len(shared), true
}

// candidates returns the words that can stand for the one that begins with beginning.
func (p *qmpPrompt) candidates(before, beginning string) []string {
	typed := strings.Fields(before)
	if len(typed) == 0 {
		return startingWith(p.schema.Commands(), beginning)
	}
	var words []string
	for _, a := range p.schema.Arguments(typed[0]) {
		given := func(word string) bool { return strings.HasPrefix(word, a.Name+"=") }
		switch {
		case given(beginning):
			for _, value := range a.Values {
				words = append(words, a.Name+"="+value)
			}
		case !slices.ContainsFunc(typed, given):
			words = append(words, a.Name+"=")
		}
	}
	return startingWith(words, beginning)
}

func sharedBeginning(words []string) string {
	shared := words[0]
	for _, w := range words[1:] {
		for !strings.HasPrefix(w, shared) {
			shared = shared[:len(shared)-1]
		}
	}
	return shared
}
