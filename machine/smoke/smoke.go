package smoke

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sourcery-zone/sandbox/image"
	"github.com/sourcery-zone/sandbox/internal/progress"
	"github.com/sourcery-zone/sandbox/machine"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// Target is an image to boot.
type Target struct {
	Image *image.Image
	// Ref is what machine.Config.Image is to be for it.
	Ref image.Ref
	// Bad is why the image cannot be booted; then Image is nil, and Ref its
	// name in the report.
	Bad error
}

// Options say how images are booted, and what is found out about them.
type Options struct {
	Checks   []Check         // the caller's own
	CheckDir *virtiofs.Share // where those of FindChecks are; the guest sees it read-only
	// Timeout is for each stage of readiness, counted from the start, and for
	// each check.
	Timeout time.Duration
	Repeat  int // how often each image is booted
	Jobs    int // how many guests run at once
	// Artifacts is the directory for the logs of what fails; empty: they are
	// not kept.
	Artifacts string
	Progress  *progress.Reporter
	Note      func(string) // called for what the user should know; one call at a time
}

// Validate finds what is wrong with o in itself.
func (o Options) Validate() error {
	errs := []error{checkNames(o.Checks)}
	if o.Repeat < 1 {
		errs = append(errs, fmt.Errorf("--repeat is %d, but must be at least 1", o.Repeat))
	}
	if o.Jobs < 1 {
		errs = append(errs, fmt.Errorf("--jobs is %d, but must be at least 1", o.Jobs))
	}
	if o.Timeout <= 0 {
		errs = append(errs, fmt.Errorf("--timeout is %v, but must be more than nothing", o.Timeout))
	}
	return errors.Join(errs...)
}

// Run boots every target as often as o says. What is wrong with an image or
// with the machine is in the report, in the order of the targets; the end of
// ctx makes the machine unfit.
func Run(ctx context.Context, host *machine.Host, targets []Target, o Options) Report {
	var noting sync.Mutex
	seen := map[string]bool{}
	note := o.Note
	o.Note = func(text string) { // each boot has the same to say
		noting.Lock()
		defer noting.Unlock()
		if note != nil && !seen[text] {
			note(text)
		}
		seen[text] = true
	}
	return runAll(targets, o, func(t Target, number int, verify func() error) Boot {
		b := &booting{host: host, target: t, verify: verify, options: o, began: time.Now()}
		b.boot = Boot{Image: t.name(), Number: number, Began: b.began.UTC()}
		b.run(ctx)
		return b.boot
	}, func(t Target) error { return t.check(ctx) })
}

// runAll calls boot for each boot, o.Jobs at a time. An image is verified
// once, with its first boot.
func runAll(targets []Target, o Options, boot func(t Target, number int, verify func() error) Boot, verify func(Target) error) Report {
	boots := make([]Boot, len(targets)*o.Repeat)
	numbers := map[string]int{} // a target may be named twice
	var group errgroup.Group
	group.SetLimit(o.Jobs)
	for i, t := range targets {
		intact := sync.OnceValue(func() error { return verify(t) })
		for j := range o.Repeat {
			numbers[t.name()]++
			number := numbers[t.name()]
			group.Go(func() error {
				boots[i*o.Repeat+j] = boot(t, number, intact)
				return nil
			})
		}
	}
	_ = group.Wait() // its functions report in boots
	return reportOf(boots)
}

func (t Target) name() string {
	if t.Image == nil {
		return t.Ref.String()
	}
	return t.Image.Ref()
}

func (t Target) check(ctx context.Context) error {
	if t.Bad != nil {
		return t.Bad
	}
	return t.Image.Verify(ctx)
}
