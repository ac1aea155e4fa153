package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// screenModes passes a guest's output on to the person's terminal, and
// remembers what it switched on there and not off again: a program whose
// machine ends under it leaves a terminal that nobody can use. The sequences
// are those of xterm's "ctlseqs" and of kitty's keyboard protocol.
type screenModes struct {
	mu     sync.Mutex
	w      io.Writer
	closed bool

	state  scanState
	params []byte // of the control sequence that is under way

	private    map[int]bool // DEC private modes that are not as they begin
	kitty      int          // pushed flags of the keyboard protocol
	kittySet   bool         // its flags were set without a push
	otherKeys  bool         // xterm's modifyOtherKeys
	keypad     bool         // application keypad
	insert     bool
	region     bool // scrolling is limited to some lines
	style      bool // the cursor's
	colours    bool // or other attributes of characters
	graphics   bool // line drawing in place of letters
	shiftedOut bool
}

func newScreenModes(w io.Writer) *screenModes {
	return &screenModes{w: w, private: map[int]bool{}}
}

// begins are the DEC private modes that are followed, with their usual values:
// keys, video, wrapping, mouse, cursor, focus, screens, paste, and what
// programs of today ask to be told.
var begins = map[int]bool{
	1: false, 5: false, 7: true, 9: false, 25: true, 47: false, 66: false,
	1000: false, 1001: false, 1002: false, 1003: false, 1004: false, 1005: false, 1006: false, 1015: false, 1016: false,
	1047: false, 1049: false, 2004: false, 2026: false, 2031: false, 2048: false,
}

// alternateScreens come last, as what else was switched on belongs to them.
var alternateScreens = []int{47, 1047, 1049}

// Write implements io.Writer. What comes after close is dropped.
func (s *screenModes) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return len(p), nil
	}
	for _, b := range p {
		s.scan(b)
	}
	return s.w.Write(p)
}

// close switches off what is still on.
func (s *screenModes) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	_, _ = io.WriteString(s.w, s.undo()) // a lost terminal needs none of it
}

// undo are the sequences that switch off what is on.
func (s *screenModes) undo() string {
	var b strings.Builder
	say := func(on bool, sequence string) {
		if on {
			b.WriteString(sequence)
		}
	}
	if s.state != scanText {
		b.WriteByte(0x18) // CAN ends a sequence, or a string, that is under way
	}
	alternate := slices.ContainsFunc(alternateScreens, func(n int) bool { return s.private[n] })
	say(s.kitty > 0, fmt.Sprintf("\x1b[<%du", s.kitty))
	say(s.kittySet, "\x1b[=0u")
	say(s.otherKeys, "\x1b[>4m")
	say(s.region && alternate, "\x1b[r")
	say(s.region && !alternate, "\x1b7\x1b[r\x1b8") // it moves the cursor
	for _, n := range slices.Sorted(maps.Keys(s.private)) {
		if !slices.Contains(alternateScreens, n) {
			b.WriteString(setPrivate(n, begins[n]))
		}
	}
	for _, n := range alternateScreens {
		say(s.private[n], setPrivate(n, false))
	}
	say(s.keypad, "\x1b>")
	say(s.insert, "\x1b[4l")
	say(s.graphics, "\x1b(B")
	say(s.shiftedOut, "\x0f")
	say(s.colours, "\x1b[m")
	say(s.style, "\x1b[0 q")
	return b.String()
}

func setPrivate(mode int, on bool) string {
	if on {
		return fmt.Sprintf("\x1b[?%dh", mode)
	}
	return fmt.Sprintf("\x1b[?%dl", mode)
}

// scanState is where in a control sequence (ECMA-48) the output is.
type scanState int

const (
	scanText scanState = iota
	scanEscape
	scanCharset  // after ESC and an intermediate character
	scanSequence // after CSI
	scanString   // after OSC, DCS and the like, until BEL or ST
)

// maxParams is more than any sequence that is followed has.
const maxParams = 64

func (s *screenModes) scan(b byte) {
	switch {
	case b == 0x1b:
		s.state, s.params = scanEscape, s.params[:0]
		return
	case b == 0x18 || b == 0x1a: // CAN, SUB
		s.state = scanText
		return
	}
	switch s.state {
	case scanText:
		if b == 0x0e || b == 0x0f { // SO, SI
			s.shiftedOut = b == 0x0e
		}
	case scanEscape:
		s.escape(b)
	case scanCharset:
		if b >= 0x30 {
			if string(s.params) == "(" {
				s.graphics = b == '0'
			}
			s.state = scanText
		}
	case scanSequence:
		switch {
		case b >= 0x40 && b < 0x7f:
			s.sequence(string(s.params), b)
			s.state = scanText
		case b >= 0x20 && len(s.params) < maxParams:
			s.params = append(s.params, b)
		}
	case scanString:
		if b == 0x07 { // ST begins with ESC
			s.state = scanText
		}
	}
}

func (s *screenModes) escape(b byte) {
	s.state = scanText
	switch {
	case b == '[':
		s.state = scanSequence
	case strings.IndexByte("]P_^X", b) >= 0:
		s.state = scanString
	case b == '=' || b == '>':
		s.keypad = b == '='
	case b >= 0x20 && b < 0x30:
		s.state, s.params = scanCharset, append(s.params, b)
	}
}

// sequence follows a control sequence with these parameters.
func (s *screenModes) sequence(params string, final byte) {
	set := final == 'h'
	switch {
	case strings.HasPrefix(params, "?") && (set || final == 'l'):
		for number := range strings.SplitSeq(params[1:], ";") {
			mode, _ := strconv.Atoi(number) // 0 is none that is followed
			if usual, followed := begins[mode]; followed && set == usual {
				delete(s.private, mode)
			} else if followed {
				s.private[mode] = true
			}
		}
	case params == "4" && (set || final == 'l'):
		s.insert = set
	case final == 'u' && strings.HasPrefix(params, ">"):
		s.kitty++
	case final == 'u' && strings.HasPrefix(params, "<"):
		s.kitty = max(0, s.kitty-max(1, number(params[1:])))
	case final == 'u' && strings.HasPrefix(params, "="):
		s.kittySet = number(params[1:]) != 0
	case final == 'm' && strings.HasPrefix(params, ">4"):
		_, level, _ := strings.Cut(params, ";")
		s.otherKeys = number(level) != 0
	case final == 'm' && !strings.ContainsAny(params, "<=>?"):
		s.colours = number(params) != 0 || strings.ContainsAny(params, ";:")
	case final == 'q' && strings.HasSuffix(params, " "):
		s.style = number(params) != 0
	case final == 'r' && !strings.HasPrefix(params, "?"):
		s.region = params != ""
	}
}

// number is the one with which a list of parameters begins; a missing one is 0.
func number(params string) int {
	digits := strings.IndexFunc(params, func(r rune) bool { return r < '0' || r > '9' })
	if digits >= 0 {
		params = params[:digits]
	}
	n, _ := strconv.Atoi(params)
	return n
}
