package project

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sourcery-zone/sandbox/internal/flock"
	"github.com/sourcery-zone/sandbox/internal/trust"
)

// Answers are what the user has opened for all sandboxes of a project when its guests asked: a file for each project,
// written as a consent is. They are no consents, because no file of the project asks for them; what it says changes nothing.
type Answers struct{ Dir string }

func (a Answers) files() Consents { return Consents(a) }

// Rules are those that were opened for a project, in the order in which they were. A file that cannot be used is an error,
// and not used in part.
func (a Answers) Rules(project string) ([]string, error) {
	r, err := a.files().Of(project)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var rules []string
	for _, ask := range r.Asks {
		if err := checkAnswer(ask); err != nil {
			return nil, fmt.Errorf("%s: %w", a.files().path(project), err)
		}
		rules = append(rules, ask.Value)
	}
	return rules, nil
}

func checkAnswer(a Ask) error {
	if a.Option != "allow" {
		return fmt.Errorf("an answer opens a rule, and does not set %q", a.Option)
	}
	return checkAsk(a)
}

// Add opens a rule for a project from now on.
func (a Answers) Add(project, rule string) error {
	answer := Ask{Option: "allow", Value: rule}
	if err := checkAnswer(answer); err != nil {
		return err
	}
	dir, err := trust.MakeDir(a.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	lock, err := flock.Wait(filepath.Join(a.Dir, "lock"), nil) // two answers at once are both remembered
	if err != nil {
		return err
	}
	defer flock.Unlock(lock)
	r := Request{Directory: project}
	rules, err := a.Rules(project)
	if err != nil {
		return err
	}
	for _, known := range rules {
		if known == rule {
			return nil
		}
		r.Asks = append(r.Asks, Ask{Option: "allow", Value: known})
	}
	if len(r.Asks) >= maxAsks {
		return fmt.Errorf("%s has %d rules of this kind already, and more are more than one can oversee", project, len(r.Asks))
	}
	r.Asks = append(r.Asks, answer)
	return a.files().Give(r)
}

// Forget takes back what was opened for a project. The error is os.ErrNotExist if there is nothing.
func (a Answers) Forget(project string) error { return a.files().Withdraw(project) }

// List are the projects with what was opened for them. What cannot be read is in the error.
func (a Answers) List() ([]Request, error) { return a.files().List() }
