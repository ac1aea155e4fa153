package qmp

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/sourcery-zone/sandbox/internal/remedy"
)

// Script is a sequence of steps: commands, waits, and what is expected of their results. The
// repository's docs/qmp.md has the syntax.
type Script struct {
	File  string // for messages; may be empty
	Steps []Step
}

// Step is one line of a script. Exactly one of Execute, WaitEvent and WaitJob is set.
type Step struct {
	Line int // 0 outside of a file

	Execute   string // a command
	Arguments map[string]any
	Expect    any // what its result must contain; nil: anything

	WaitEvent string         // the name of an event
	Match     map[string]any // what its data must contain

	WaitJob string // the id of a job

	// ExpectError, unless empty, is a part of the error that the command or job must end with.
	ExpectError string
	// Set names variables and where their values are in the result or in the event's data, as
	// JSON pointers (RFC 6901).
	Set map[string]string
	// Timeout is how long the step may take. Zero means the run's.
	Timeout time.Duration
}

// stepText is a step as it is written.
type stepText struct {
	Execute     string            `json:"execute"`
	Arguments   map[string]any    `json:"arguments"`
	Expect      any               `json:"expect"`
	ExpectError *string           `json:"expect-error"`
	WaitEvent   string            `json:"wait-for-event"`
	Match       map[string]any    `json:"match"`
	WaitJob     string            `json:"wait-for-job"`
	Set         map[string]string `json:"set"`
	Timeout     *string           `json:"timeout"`
}

// ParseScript reads a script and checks all that can be checked before it runs. variables are the
// names of those that the run will be given. All that is wrong is in the error, a line each, after
// the file's name and the line's number.
func ParseScript(file string, r io.Reader, variables []string) (*Script, error) {
	s := &Script{File: file}
	known := slices.Clone(variables)
	var wrong []error
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20) // a line holds a whole command, and some have large arguments
	number := 0
	for lines.Scan() {
		number++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 || text[0] == '#' {
			continue
		}
		step, err := parseStep(text)
		if err == nil {
			err = step.checkVariables(known)
		}
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s:%d: %w", file, number, err))
		}
		for name := range step.Set {
			known = append(known, name)
		}
		step.Line = number
		s.Steps = append(s.Steps, step)
	}
	if err := lines.Err(); err != nil {
		wrong = append(wrong, fmt.Errorf("%s:%d: %w", file, number+1, err))
	}
	return s, errors.Join(wrong...)
}

func parseStep(text []byte) (Step, error) {
	var t stepText
	in := json.NewDecoder(bytes.NewReader(text))
	in.DisallowUnknownFields()
	in.UseNumber()
	if err := in.Decode(&t); err != nil {
		return Step{}, fmt.Errorf("each line is one JSON object, such as %s: %w", `{"execute": "query-status"}`, err)
	}
	if in.InputOffset() != int64(len(text)) {
		return Step{}, errors.New("there is something after the JSON object: each line is one step")
	}
	step := Step{
		Execute: t.Execute, Arguments: t.Arguments, Expect: t.Expect,
		WaitEvent: t.WaitEvent, Match: t.Match, WaitJob: t.WaitJob, Set: t.Set,
	}
	if err := t.check(); err != nil {
		return step, err
	}
	if t.ExpectError != nil {
		step.ExpectError = *t.ExpectError
	}
	if t.Timeout != nil {
		d, err := time.ParseDuration(*t.Timeout)
		if err != nil || d <= 0 {
			return step, fmt.Errorf("timeout is %q, but must be a duration such as \"30s\"", *t.Timeout)
		}
		step.Timeout = d
	}
	for name, pointer := range t.Set {
		if !validName(name) {
			return step, fmt.Errorf("set names the variable %q, but names have letters, digits and underscores only, and no digit first", name)
		}
		if pointer != "" && pointer[0] != '/' {
			return step, fmt.Errorf("set takes %s from %q, which is no JSON pointer: write %q, or \"\" for all of it", name, pointer, "/"+pointer)
		}
	}
	return step, nil
}

// check finds members that do not go together.
func (t *stepText) check() error {
	var kinds []string
	for kind, name := range map[string]string{"execute": t.Execute, "wait-for-event": t.WaitEvent, "wait-for-job": t.WaitJob} {
		if name != "" {
			kinds = append(kinds, kind)
		}
	}
	if len(kinds) != 1 {
		return errors.New("a step has exactly one of execute, wait-for-event and wait-for-job")
	}
	kind := kinds[0]
	for _, m := range []struct {
		name    string
		present bool
		goes    string // kinds that it goes with
	}{
		{"arguments", t.Arguments != nil, "execute"},
		{"expect", t.Expect != nil, "execute"},
		{"expect-error", t.ExpectError != nil, "execute wait-for-job"},
		{"match", t.Match != nil, "wait-for-event"},
		{"set", t.Set != nil, "execute wait-for-event"},
	} {
		if m.present && !slices.Contains(strings.Fields(m.goes), kind) {
			return fmt.Errorf("%s does not go with %s", m.name, kind)
		}
	}
	if t.ExpectError == nil {
		return nil
	}
	if *t.ExpectError == "" {
		return errors.New("expect-error is empty: write a part of the message that is expected")
	}
	if t.Expect != nil || t.Set != nil {
		return errors.New("a command that is expected to fail has no result: expect and set do not go with expect-error")
	}
	return nil
}

// checkVariables finds variables that nothing sets before the step.
func (s *Step) checkVariables(known []string) error {
	check := func(name string) (any, error) {
		if !slices.Contains(known, name) {
			return nil, remedy.Add(fmt.Errorf("the variable $%s is not set before this line", name), remedy.SetVariable, name)
		}
		return "", nil
	}
	_, err := s.expand(check)
	return err
}

// expand returns the step with values in the place of its variables.
func (s Step) expand(lookup func(name string) (any, error)) (Step, error) {
	arguments, err1 := expandObject(s.Arguments, lookup)
	match, err2 := expandObject(s.Match, lookup)
	expect, err3 := expand(s.Expect, lookup)
	job, err4 := expandText(s.WaitJob, lookup)
	s.Arguments, s.Match, s.Expect, s.WaitJob = arguments, match, expect, fmt.Sprint(job)
	return s, errors.Join(err1, err2, err3, err4)
}

// Danger returns why the script may not run without the user's consent: the first step with a
// command for which there is a Risk. It is nil if there is none.
func (s *Script) Danger() error {
	for _, step := range s.Steps {
		if step.Execute == "" {
			continue
		}
		if reason := Risk(step.Execute); reason != "" {
			return s.at(step, fmt.Errorf("%s %s", step.Execute, reason))
		}
	}
	return nil
}

// at says where a step is.
func (s *Script) at(step Step, err error) error {
	if err == nil || step.Line == 0 {
		return err
	}
	return fmt.Errorf("%s:%d: %w", s.File, step.Line, err)
}
