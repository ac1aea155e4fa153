package progress

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/sourcery-zone/sandbox/internal/terminal"
)

// Reporter writes the progress of one step after the other. A nil Reporter says
// nothing. It may be used from several goroutines.
type Reporter struct {
	w        io.Writer
	terminal bool
}

// New returns a Reporter that writes to f, which stays the caller's.
func New(f *os.File) *Reporter {
	return &Reporter{w: f, terminal: term.IsTerminal(int(f.Fd()))}
}

// NewPlain returns a Reporter that writes lines to w, whatever w is.
func NewPlain(w io.Writer) *Reporter { return &Reporter{w: w} }

// Step is something that takes a while. It must be ended with Done or Fail.
type Step struct {
	r     *Reporter
	title string
	start time.Time

	mu    sync.Mutex
	bar   *progressbar.ProgressBar // nil without a terminal
	note  string
	ended bool
}

// Start begins a step. size is how many bytes will be written to it, or 0 if
// that is not what it counts or not known.
func (r *Reporter) Start(title string, size int64) *Step {
	title = terminal.Line(title)
	s := &Step{r: r, title: title, start: time.Now()}
	switch {
	case r == nil:
	case r.terminal:
		s.bar = newBar(r.w, title, size)
	default:
		fmt.Fprintf(r.w, "%s…\n", title)
	}
	return s
}

func newBar(w io.Writer, title string, size int64) *progressbar.ProgressBar {
	options := []progressbar.Option{
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(title),
		progressbar.OptionSetElapsedTime(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionSetWidth(20),
	}
	if size > 0 {
		return progressbar.NewOptions64(size, append(options, progressbar.OptionShowBytes(true), progressbar.OptionSetPredictTime(true))...)
	}
	// The spinner turns by itself, so that a silent step looks alive.
	return progressbar.NewOptions64(-1, append(options, progressbar.OptionSpinnerType(14), progressbar.OptionSetSpinnerChangeInterval(200*time.Millisecond))...)
}

// Note says what the step is at.
func (s *Step) Note(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text = terminal.Line(text)
	if s.r == nil || s.ended || text == s.note {
		return
	}
	s.note = text
	if s.bar != nil {
		s.bar.Describe(s.title + ": " + shorten(text, 50))
		return
	}
	fmt.Fprintf(s.r.w, "%s: %s\n", s.title, text)
}

// Write counts len(p) bytes as done. It never fails.
func (s *Step) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil && !s.ended {
		_ = s.bar.Add(len(p)) // it can only fail to draw
	}
	return len(p), nil
}

// Done ends the step and says how long it took.
func (s *Step) Done() { s.end("done") }

// Fail ends the step; the reason is for the caller to tell. After Done it does
// nothing, so that it can be deferred.
func (s *Step) Fail() { s.end("failed") }

func (s *Step) end(how string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.r == nil || s.ended {
		return
	}
	s.ended = true
	if s.bar != nil {
		_ = s.bar.Finish() // clears its line; it can only fail to draw
	}
	fmt.Fprintf(s.r.w, "%s: %s (%s)\n", s.title, how, round(time.Since(s.start)))
}

// round keeps what a person wants to know of a duration.
func round(d time.Duration) time.Duration {
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond)
	}
	return d.Round(time.Second)
}

func shorten(text string, length int) string {
	runes := []rune(text)
	if len(runes) <= length {
		return text
	}
	return string(runes[:length-1]) + "…"
}
