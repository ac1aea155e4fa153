package nix

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Types of activities and results in Nix's internal-json log (logging.hh of
// Nix's libutil).
const (
	activityCopyPaths  = 103
	activityBuilds     = 104
	activityBuild      = 105
	activitySubstitute = 108

	resultLogLine  = 101
	resultProgress = 105
)

// Levels of messages.
const (
	levelError   = 0
	levelWarning = 1
)

// Lines that are kept of what may become long.
const (
	logLines   = 20 // of a derivation's log; Nix itself shows 25
	errorLines = 30 // of Nix's own message; an evaluation's trace can be hundreds
)

// event is one line of the log.
type event struct {
	Action string            `json:"action"` // start, stop, result or msg
	ID     uint64            `json:"id"`
	Type   int               `json:"type"`
	Level  int               `json:"level"`
	Text   string            `json:"text"` // of start
	Msg    string            `json:"msg"`
	Fields []json.RawMessage `json:"fields"`
}

// log is what is known from the log of one run of Nix.
type log struct {
	note   func(string)
	builds map[uint64]*derivation
	counts map[uint64]*count // by the activity that counts
	built  count
	copied count
	errors []string
}

// derivation is a derivation that is being built.
type derivation struct {
	path string // of its .drv file
	tail []string
}

// count is how much of something is done.
type count struct{ started, expected int }

func (c *count) String() string {
	return fmt.Sprintf("%d of %d", c.started, max(c.started, c.expected))
}

func newLog(note func(string)) *log {
	return &log{note: note, builds: map[uint64]*derivation{}, counts: map[uint64]*count{}}
}

// read follows the log to its end. It keeps reading whatever it finds, because
// Nix would otherwise wait for it.
func (l *log) read(r io.Reader) {
	for lines := bufio.NewReader(r); ; {
		line, err := lines.ReadString('\n')
		l.line(strings.TrimRight(line, "\r\n"))
		if err != nil {
			return
		}
	}
}

func (l *log) line(line string) {
	text, ok := strings.CutPrefix(line, "@nix ")
	var e event
	if !ok || json.Unmarshal([]byte(text), &e) != nil {
		if line = plain(line); line != "" {
			l.errors = append(l.errors, line)
		}
		return
	}
	switch e.Action {
	case "start":
		l.start(e)
	case "result":
		l.result(e)
	case "msg":
		l.message(e)
	}
}

func (l *log) start(e event) {
	switch e.Type {
	case activityBuilds:
		l.counts[e.ID] = &l.built
	case activityCopyPaths:
		l.counts[e.ID] = &l.copied
	case activityBuild:
		path := field[string](e, 0)
		l.builds[e.ID] = &derivation{path: path}
		l.built.started++
		l.note(fmt.Sprintf("building %s (%s)", storeName(path), &l.built))
	case activitySubstitute:
		l.copied.started++
		l.note(fmt.Sprintf("fetching %s (%s)", storeName(field[string](e, 0)), &l.copied))
	default:
		switch text := plain(e.Text); {
		case strings.HasPrefix(text, "evaluating derivation"):
			l.note("evaluating")
		case strings.HasPrefix(text, "fetching "):
			l.note(text)
		}
	}
}

func (l *log) result(e event) {
	switch e.Type {
	case resultLogLine:
		if b := l.builds[e.ID]; b != nil {
			b.tail = append(b.tail, plain(field[string](e, 0)))
			b.tail = b.tail[max(0, len(b.tail)-logLines):]
		}
	case resultProgress:
		if c := l.counts[e.ID]; c != nil {
			c.expected = field[int](e, 1)
		}
	}
}

func (l *log) message(e event) {
	text := plain(e.Msg)
	switch e.Level {
	case levelError:
		l.errors = append(l.errors, text)
	case levelWarning:
		first, _, _ := strings.Cut(text, "\n")
		first, _, _ = strings.Cut(first, "; retrying in") // each time another
		l.note(first)
	}
}

// field is the field of an event, or zero if it has none of that kind.
func field[T any](e event, i int) (value T) {
	if i < len(e.Fields) {
		_ = json.Unmarshal(e.Fields[i], &value) // zero, then
	}
	return value
}

// errNoOutput tells that a flake does not have what was asked for.
var errNoOutput = errors.New("the flake has no such output")

// explain turns a failure of Nix into what a person can act on.
func (l *log) explain(status error) error {
	has := func(words string) bool {
		return slices.ContainsFunc(l.errors, func(e string) bool { return strings.Contains(e, words) })
	}
	switch failed, why := l.failed(); {
	case has("does not provide attribute"):
		return errNoOutput
	case failed != nil:
		return fmt.Errorf("the derivation %s failed: %s\nThe last lines of its log:\n%s\nAll of it: nix --extra-experimental-features nix-command log %s",
			storeName(failed.path), why, indent(failed.tail), failed.path)
	case len(l.errors) == 0:
		return fmt.Errorf("it said nothing (%w)", status)
	}
	var lines []string
	for _, e := range l.errors {
		lines = append(lines, strings.Split(strings.TrimSpace(strings.TrimPrefix(e, "error:")), "\n")...)
	}
	if left := len(lines) - errorLines; left > 0 {
		lines = append([]string{fmt.Sprintf("(%d lines before)", left)}, lines[left:]...)
	}
	err := errors.New(strings.Join(lines, "\n"))
	// The two ways in which versions of Nix say that no machine has the
	// processor, or a feature such as kvm.
	if has("is required to build") || has("required system or feature not available") {
		err = fmt.Errorf("%w\nThis machine cannot build that: add a builder that can to Nix's configuration, or emulation of its processor (binfmt and extra-platforms)", err)
	}
	return err
}

// failed is the derivation that Nix blames, of those whose log was seen, and
// what Nix says of it, which for a download is more than its log does: others
// end early because of it, or need it.
func (l *log) failed() (failed *derivation, why string) {
	for _, e := range l.errors {
		for _, b := range l.builds {
			if b.path != "" && strings.Contains(e, b.path) {
				why = repeatedLog.ReplaceAllString(strings.TrimPrefix(e, "error:"), "")
				return b, strings.TrimSpace(why)
			}
		}
	}
	return nil, ""
}

// indent sets lines off from the message around them.
func indent(lines []string) string {
	if len(lines) == 0 {
		return "  (it is empty)"
	}
	return "  " + strings.Join(lines, "\n  ")
}

var (
	escape    = regexp.MustCompile(`\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)`)
	storePath = regexp.MustCompile(`^.*/[0-9a-z]{32}-`)
	// Services of Nix and its newer versions end a message with the log.
	repeatedLog = regexp.MustCompile(`(?s);?\s*[Ll]ast \d+ log lines:.*`)
)

// plain removes colours, and whatever else a builder may print to play with
// the terminal.
func plain(text string) string {
	text = escape.ReplaceAllString(text, "")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return -1
		}
		return r
	}, text)
}

// storeName is the readable part of a path in Nix's store.
func storeName(path string) string {
	return strings.TrimSuffix(storePath.ReplaceAllString(path, ""), ".drv")
}
