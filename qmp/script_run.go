package qmp

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"time"
)

// ErrUnexpected is matched by the error of a script that found other than it expected.
var ErrUnexpected = errors.New("not as expected")

// RunOptions are the choices of a script's run. The zero value is good.
type RunOptions struct {
	// Variables are there from the beginning: strings, numbers (json.Number), booleans, lists
	// ([]any) and objects (map[string]any).
	Variables map[string]any
	// Timeout is for each step that has none of its own. Zero means one minute.
	Timeout time.Duration
	// Report is called after each step, with the command's result or the event; nil for a job.
	Report func(step Step, result any)
}

// scriptRun is the state of one run.
type scriptRun struct {
	script    *Script
	client    *Client
	o         RunOptions
	variables map[string]any
	next      nextEvent          // of all events since the start
	unseen    []Event            // read already, and not waited for yet
	jobs      map[string]*jobEnd // started here and not waited for yet
	order     []string           // their ids
}

// Run carries the script out on a client after its handshake. It ends at the first step that fails,
// and otherwise not before the jobs that it started. Errors name file and line. They match *Error
// for a refusal, *JobError for a failed job, ErrUnexpected where a result is not what the script
// expects, and context.DeadlineExceeded where a step took too long.
func (s *Script) Run(ctx context.Context, c *Client, o RunOptions) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	events, err := c.Events(ctx)
	if err != nil {
		return err
	}
	r := &scriptRun{script: s, client: c, o: o, variables: map[string]any{}, jobs: map[string]*jobEnd{}}
	maps.Copy(r.variables, o.Variables)
	if r.o.Timeout == 0 {
		r.o.Timeout = defaultTimeout
	}
	next := c.eventsOf(events)
	r.next = func(ctx context.Context) (Event, error) {
		e, err := next(ctx)
		for _, job := range r.jobs {
			job.observe(e)
		}
		return e, err
	}
	var last Step
	for _, step := range s.Steps {
		if err := r.step(ctx, step); err != nil {
			return s.at(step, err)
		}
		last = step
	}
	for _, id := range r.order {
		if r.jobs[id] == nil {
			continue // waited for
		}
		if err := r.step(ctx, Step{WaitJob: strings.ReplaceAll(id, "$", "$$"), Timeout: last.Timeout}); err != nil {
			return s.at(last, err)
		}
	}
	return nil
}

func (r *scriptRun) step(ctx context.Context, written Step) error {
	step, err := written.expand(func(name string) (any, error) {
		value, ok := r.variables[name]
		if !ok {
			return nil, fmt.Errorf("the variable $%s is not set", name)
		}
		return value, nil
	})
	if err != nil {
		return err
	}
	timeout := step.Timeout
	if timeout == 0 {
		timeout = r.o.Timeout
	}
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	result, err := r.perform(limited, step)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("it took longer than %v: %w", timeout, err)
	}
	result, err = step.judge(result, err)
	if err != nil {
		return err
	}
	for name, pointer := range step.Set {
		if r.variables[name], err = point(result, pointer); err != nil {
			return fmt.Errorf("%w: cannot set %s: %v", ErrUnexpected, name, err)
		}
	}
	if r.o.Report != nil && (written.Line != 0 || written.WaitJob == "") {
		r.o.Report(step, result)
	}
	return nil
}

func (r *scriptRun) perform(ctx context.Context, step Step) (any, error) {
	switch {
	case step.WaitEvent != "":
		return r.waitEvent(ctx, step)
	case step.WaitJob != "":
		return nil, r.waitJob(ctx, step.WaitJob)
	}
	return r.execute(ctx, step)
}

// judge compares how a step ended with what was expected.
func (s Step) judge(result any, err error) (any, error) {
	var (
		refused *Error
		failed  *JobError
	)
	switch {
	case s.ExpectError == "" && err == nil:
		if s.Expect == nil {
			return result, nil
		}
		if problem := mismatch("", result, s.Expect); problem != "" {
			return nil, fmt.Errorf("%w: %s", ErrUnexpected, problem)
		}
		return result, nil
	case s.ExpectError == "":
		return nil, err
	case err == nil:
		return nil, fmt.Errorf("%w: it succeeded, and an error with %q was expected", ErrUnexpected, s.ExpectError)
	case !errors.As(err, &refused) && !errors.As(err, &failed):
		return nil, err
	case !strings.Contains(err.Error(), s.ExpectError):
		return nil, fmt.Errorf("%w: an error with %q was expected, and it was: %v", ErrUnexpected, s.ExpectError, err)
	}
	return err.Error(), nil
}

func (r *scriptRun) execute(ctx context.Context, step Step) (any, error) {
	var args any // a nil map would be encoded as null
	if step.Arguments != nil {
		args = step.Arguments
	}
	id, startsJob := step.Arguments["job-id"].(string)
	if startsJob {
		r.jobs[id] = &jobEnd{id: id} // now, so that no event of it is missed
	}
	var text json.RawMessage
	err := r.client.Execute(ctx, step.Execute, args, &text)
	switch {
	case step.Execute == "quit" && errors.Is(err, io.EOF):
		return map[string]any{}, nil // its end outran its answer
	case err != nil:
		delete(r.jobs, id)
		return nil, err
	}
	if startsJob {
		r.order = append(r.order, id)
	}
	return decode(text)
}

// decode keeps numbers as they are written.
func decode(text []byte) (any, error) {
	in := json.NewDecoder(bytes.NewReader(text))
	in.UseNumber()
	var value any
	err := in.Decode(&value)
	return value, err
}

// waitEvent looks at the events since the last one that was waited for.
func (r *scriptRun) waitEvent(ctx context.Context, step Step) (any, error) {
	for {
		var e Event
		if len(r.unseen) > 0 {
			e, r.unseen = r.unseen[0], r.unseen[1:]
		} else {
			var err error
			if e, err = r.next(ctx); err != nil {
				return nil, fmt.Errorf("waiting for the event %s: %w", step.WaitEvent, err)
			}
		}
		if e.Event != step.WaitEvent {
			continue
		}
		text, err := json.Marshal(e.Data)
		if err != nil {
			return nil, err
		}
		data, err := decode(text)
		if err != nil {
			return nil, err
		}
		if step.Match == nil || mismatch("", data, step.Match) == "" {
			return data, nil
		}
	}
}

// waitJob waits for a job that the script or somebody else has started.
func (r *scriptRun) waitJob(ctx context.Context, id string) error {
	job, started := r.jobs[id]
	if !started {
		job = &jobEnd{id: id}
		r.jobs[id] = job
	}
	defer delete(r.jobs, id)
	if !started {
		if err := r.client.seekJob(ctx, job); err != nil {
			return err
		}
	}
	keep := func(ctx context.Context) (Event, error) {
		e, err := r.next(ctx)
		if err == nil {
			r.unseen = append(r.unseen, e)
		}
		return e, err
	}
	if err := r.client.followJob(ctx, keep, job); err != nil {
		return fmt.Errorf("waiting for QEMU's job %q: %w", id, err)
	}
	return job.err()
}

// seekJob asks for the status of a job of which there may be no event any more.
func (c *Client) seekJob(ctx context.Context, job *jobEnd) error {
	jobs, err := c.Jobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if j.ID == job.id {
			job.begun, job.status = true, j.Status
			return nil
		}
	}
	return fmt.Errorf("QEMU has no job %q: the command that starts it must have it as its job-id", job.id)
}
