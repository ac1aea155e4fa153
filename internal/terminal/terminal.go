package terminal

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Text is s with everything escaped that is no visible character, except for
// line ends and tabs. It is for text of several lines, such as a message.
func Text(s string) string {
	if strings.IndexFunc(s, special) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	w := NewWriter(&b)
	_, _ = io.WriteString(w, s) // a Builder never fails
	_ = w.Close()
	return b.String()
}

// Line is Text of one line: line ends and tabs are escaped, too. It is for what
// stands within a sentence or a table.
func Line(s string) string {
	return strings.NewReplacer("\n", `\n`, "\t", `\t`).Replace(Text(s))
}

// Writer passes on what is written to it as Text does, character by character
// however it comes in pieces.
type Writer struct {
	w    io.Writer
	held []byte // the beginning of what is to be judged as a whole
}

// NewWriter returns a Writer that writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write implements io.Writer.
func (w *Writer) Write(p []byte) (int, error) {
	text := p
	if len(w.held) > 0 {
		text = append(w.held, p...)
	}
	shown, rest := show(text, false)
	w.held = bytes.Clone(rest)
	if _, err := w.w.Write(shown); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Close writes what was held back because more could have followed. It does not
// close what is written to.
func (w *Writer) Close() error {
	if len(w.held) == 0 {
		return nil
	}
	shown, _ := show(w.held, true)
	w.held = nil
	_, err := w.w.Write(shown)
	return err
}

// maxColour is longer than any colour that is in use, with its escape.
const maxColour = 32

var (
	colour      = regexp.MustCompile(`^\x1b\[[0-9;:]*m`)
	colourBegun = regexp.MustCompile(`^\x1b(\[[0-9;:]*)?$`)
	lineEnd     = regexp.MustCompile(`^\r+\n`)
	lineEnding  = regexp.MustCompile(`^\r+$`)
)

// show returns text as it is to be shown. rest is the part at its end that
// depends on what follows; with last set there is none.
func show(text []byte, last bool) (shown, rest []byte) {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		head := text[:min(len(text), maxColour)]
		switch {
		case !special(r) && (r != utf8.RuneError || size > 1):
			shown = append(shown, text[:size]...)
		case !last && (!utf8.FullRune(text) || (len(text) < maxColour && (colourBegun.Match(text) || lineEnding.Match(text)))):
			return shown, text
		case r == '\x1b' && colour.Match(head):
			size = len(colour.Find(head))
		case r == '\r' && lineEnd.Match(head):
			// What consoles put before a line's end.
		case r == utf8.RuneError:
			shown = fmt.Appendf(shown, `\x%02x`, text[0])
		case r > 0xffff:
			shown = fmt.Appendf(shown, `\U%08x`, r)
		case r > 0x7f:
			shown = fmt.Appendf(shown, `\u%04x`, r)
		default:
			shown = fmt.Appendf(shown, `\x%02x`, r)
		}
		text = text[size:]
	}
	return shown, nil
}

// special tells whether a character is not to be shown as it is: controls of
// both sets, what changes the direction of text or takes no room, line ends but
// the usual one, and what has no meaning that is known.
func special(r rune) bool {
	return r != '\n' && r != '\t' && !unicode.IsGraphic(r)
}

// JSON is valid JSON with everything escaped in its strings that Text would
// escape. It means the same: json.Marshal leaves half of these characters alone.
func JSON(data []byte) []byte {
	var b []byte
	for len(data) > 0 {
		r, size := utf8.DecodeRune(data)
		switch {
		case !special(r):
			b = append(b, data[:size]...)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			b = fmt.Appendf(b, `\u%04x\u%04x`, high, low)
		default:
			b = fmt.Appendf(b, `\u%04x`, r)
		}
		data = data[size:]
	}
	return b
}

// Mask puts a question mark in the place of each byte of text that Text would escape, but for NUL and carriage returns. It is
// for text within a format that has lengths, of which the reader knows what line ends mean.
func Mask(text []byte) {
	for len(text) > 0 {
		r, size := utf8.DecodeRune(text)
		if special(r) && r != 0 && r != '\r' || r == utf8.RuneError {
			for i := range size {
				text[i] = '?'
			}
		}
		text = text[size:]
	}
}
