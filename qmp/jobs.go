package qmp

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// cancelTimeout is how long what nobody waits for any more may take to be undone, such as a job whose id must be free
// again.
const cancelTimeout = 10 * time.Second

// JobError is how a job ended that QEMU had accepted and could not carry out.
type JobError struct {
	ID   string // the job's
	Desc string // QEMU's own words
}

func (e *JobError) Error() string { return fmt.Sprintf("QEMU's job %q failed: %s", e.ID, e.Desc) }

// Job is one of the jobs that query-jobs lists.
type Job struct {
	ID       string `json:"id"`
	Type     string `json:"type"`   // such as "snapshot-save"
	Status   string `json:"status"` // such as "running" or "concluded"
	Current  int64  `json:"current-progress"`
	Total    int64  `json:"total-progress"` // an estimate
	ErrorMsg string `json:"error"`
}

// Jobs asks for the jobs that run, and those that have ended and were not dismissed.
func (c *Client) Jobs(ctx context.Context) ([]Job, error) {
	var jobs []Job
	err := c.Execute(ctx, "query-jobs", nil, &jobs)
	return jobs, err
}

// RunJob runs a command that starts a job, such as snapshot-save, and follows the job to its end:
// its failure is a *JobError. args are the command's arguments without the job-id, which is id. A
// job that becomes ready, as a mirror does, is completed; one that has ended is dismissed. When ctx
// ends first, the job is cancelled, for which up to ten seconds more are waited.
func (c *Client) RunJob(ctx context.Context, command string, args any, id string) error {
	withID, err := addMember(args, "job-id", id)
	if err != nil {
		return fmt.Errorf("cannot encode the arguments of QMP command %q: %w", command, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("QEMU's job %q was not started: %w", id, err)
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	events, err := c.Events(watching)
	if err != nil {
		return err
	}
	// A start that was sent is waited for: unless its answer is known, nobody can tell whether there is a job to cancel.
	starting, stopWaiting := lingering(ctx, cancelTimeout)
	defer stopWaiting()
	if err := c.Execute(starting, command, withID, nil); err != nil {
		return err
	}
	job := jobEnd{id: id}
	if err := c.followJob(ctx, c.eventsOf(events), &job); err != nil {
		if ctx.Err() != nil {
			c.cancelJob(watching, c.eventsOf(events), &job)
		}
		return fmt.Errorf("following QEMU's job %q: %w", id, err)
	}
	return job.err()
}

// lingering is ctx without its end, and ends that much later.
func lingering(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	longer, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(d, cancel)
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() { stop(); cancel() }
}

// addMember encodes args, which is anything that encodes to an object, with one more member.
func addMember(args any, name, value string) (map[string]json.RawMessage, error) {
	members := map[string]json.RawMessage{}
	if args != nil {
		text, err := json.Marshal(args)
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, &members); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(value)
	members[name] = text
	return members, err
}

// nextEvent waits for an event.
type nextEvent func(context.Context) (Event, error)

// eventsOf makes the end of a subscription an error.
func (c *Client) eventsOf(events <-chan Event) nextEvent {
	return func(ctx context.Context) (Event, error) {
		select {
		case e, ok := <-events:
			if !ok {
				return Event{}, c.noEvents()
			}
			return e, nil
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// followJob reads events until the job has ended, and dismisses it.
func (c *Client) followJob(ctx context.Context, next nextEvent, job *jobEnd) error {
	for {
		if err := c.advanceJob(ctx, job); err != nil || job.ended {
			return err
		}
		e, err := next(ctx)
		if err != nil {
			return err
		}
		job.observe(e)
	}
}

// advanceJob does what the job waits for, once.
func (c *Client) advanceJob(ctx context.Context, job *jobEnd) error {
	status := job.status
	job.status = ""
	switch status {
	case "ready":
		return c.Execute(ctx, "job-complete", map[string]string{"id": job.id}, nil)
	case "concluded":
		return c.dismissJob(ctx, job)
	}
	return nil
}

// dismissJob asks why a job that is over has ended, and gives its id free. A job that dismisses
// itself may be gone already; then its event has told.
func (c *Client) dismissJob(ctx context.Context, job *jobEnd) error {
	jobs, err := c.Jobs(ctx)
	if err != nil {
		return err
	}
	job.ended = true
	for _, j := range jobs {
		if j.ID == job.id && j.Status == "concluded" {
			job.desc = j.ErrorMsg
			return c.Execute(ctx, "job-dismiss", map[string]string{"id": job.id}, nil)
		}
	}
	return nil
}

// cancelJob ends a job that nobody waits for any more. Its failure has no one to go to, and shows
// when the id is used again.
func (c *Client) cancelJob(ctx context.Context, next nextEvent, job *jobEnd) {
	ctx, cancel := context.WithTimeout(ctx, cancelTimeout)
	defer cancel()
	_ = c.Execute(ctx, "job-cancel", map[string]string{"id": job.id}, nil)
	_ = c.followJob(ctx, next, job)
}

// noEvents is why a channel of events was closed that nobody asked to close.
func (c *Client) noEvents() error {
	if err := c.Err(); err != nil {
		return err
	}
	return fmt.Errorf("more than %d events were waiting, so the rest were lost: read them faster", eventBacklog)
}

// jobEnd is what is known of one job from its events.
type jobEnd struct {
	id     string
	begun  bool   // events before its creation are about an older job with its id
	status string // its latest, unless that was acted upon
	desc   string // QEMU's words for its failure
	ended  bool
}

// observe takes note of an event. Block jobs that dismiss themselves tell their failure in an event only.
func (j *jobEnd) observe(e Event) {
	text := func(name string) string { s, _ := e.Data[name].(string); return s }
	status := ""
	if e.Event == "JOB_STATUS_CHANGE" && text("id") == j.id {
		status = text("status")
		j.begun = j.begun || status == "created"
	}
	switch {
	case !j.begun:
	case e.Event == "BLOCK_JOB_COMPLETED" && text("device") == j.id:
		j.desc = text("error")
	case e.Event == "BLOCK_JOB_CANCELLED" && text("device") == j.id:
		j.desc = "it was cancelled"
	case status != "":
		j.status = status
		j.ended = j.ended || status == "null"
	}
}

func (j *jobEnd) err() error {
	if j.desc == "" {
		return nil
	}
	return &JobError{ID: j.id, Desc: j.desc}
}
