package secret

import (
	"bytes"
	"io"
	"strings"
)

// replacement is a text, and what takes its place.
type replacement struct {
	old   []byte
	new   string
	early int // so many bytes of it may be passed on before it is known whether the others follow
	probe int // where in it the byte is that is the rarest in other texts
}

// newReplacement returns one of which nothing is passed on early but what both texts have in common.
func newReplacement(old, new string) replacement {
	r := replacement{old: []byte(old), new: new, probe: rarest(old)}
	for r.early < min(len(old)-1, len(new)) && old[r.early] == new[r.early] {
		r.early++
	}
	return r
}

// rarest returns where a text has a byte that others seldom have.
func rarest(text string) (at int) {
	rank := func(b byte) int {
		switch {
		case 'A' <= b && b <= 'Z':
			return 0
		case strings.IndexByte("jqxz", b) >= 0:
			return 1
		case b < 'a' || b > 'z':
			return 2
		}
		return 3
	}
	for i := range len(text) {
		if rank(text[i]) < rank(text[at]) {
			at = i
		}
	}
	return at
}

// index returns where the text is next, or -1. It looks for a piece of it, as of one that is longer, package bytes compares
// every byte, and of one that begins with what is everywhere, most.
func (r *replacement) index(in []byte) int {
	const longest = 32
	piece := r.old[r.probe:min(len(r.old), r.probe+longest)]
	for at := 0; at+len(r.old) <= len(in); at++ {
		found := bytes.Index(in[at+r.probe:], piece)
		if found < 0 {
			break
		}
		if at += found; bytes.HasPrefix(in[at:], r.old) {
			return at
		}
	}
	return -1
}

func sameLength(texts []replacement) bool {
	for _, r := range texts {
		if len(r.old) != len(r.new) {
			return false
		}
	}
	return true
}

// replacer replaces texts in what is read from a source: of several at one place the first one in the list. It passes on at
// once what it has read, but for an end that may be the beginning of such a text.
type replacer struct {
	io.Closer
	source io.Reader
	texts  []replacement
	end    func() // is called when the source has ended; may be nil

	window []byte // of what was read: nothing before it matters any more
	passed int    // so much of it is passed on, or replaced
	next   []int  // where in it each text is next; -1: nowhere
	ready  bytes.Buffer
	err    error
}

func (r *replacer) Read(b []byte) (int, error) {
	for r.ready.Len() == 0 && r.err == nil && len(b) > 0 {
		var n int
		n, r.err = r.source.Read(b[:min(len(b), r.piece())])
		if n > 0 && r.err == nil && len(r.window) == 0 && r.without(b[:n]) {
			return n, nil // as most is, which need not be copied
		}
		r.window = append(r.window, b[:n]...)
		r.advance(r.err == io.EOF)
		if r.err == io.EOF && r.end != nil {
			r.end()
		}
	}
	n, _ := r.ready.Read(b)
	if r.ready.Len() > 0 {
		return n, nil
	}
	return n, r.err
}

// without tells whether there is nothing of the texts in some bytes, nor the beginning of one at their end.
func (r *replacer) without(b []byte) bool {
	for i := range r.texts {
		if text := &r.texts[i]; text.index(b) >= 0 || beginning(b, text.old, 0) < len(b) {
			return false
		}
	}
	return true
}

// piece is how much to read at once: as much as is still little when it is made of nothing but the texts.
func (r *replacer) piece() int {
	const least, most = 256, 32 << 10
	piece := most
	for _, text := range r.texts {
		piece = min(piece, most*len(text.old)/max(1, len(text.new)))
	}
	return max(piece, least)
}

// advance passes on what is known of the window.
func (r *replacer) advance(last bool) {
	from := 0 // what is before it is dealt with
	r.find(from)
	begun := r.begun(from, last)
	at, text := r.first()
	for text != nil && at < begun { // and what begins later may be within a longer one
		r.pass(at)
		r.ready.WriteString(text.new[min(r.passed-at, len(text.new)):])
		from = at + len(text.old)
		r.passed = from
		r.find(from)
		begun = r.begun(from, last)
		at, text = r.first()
	}
	until := len(r.window)
	if text != nil {
		until = at
	}
	if !last {
		until = min(until, r.held(from))
	}
	r.pass(until)
	r.window = append(r.window[:0], r.window[begun:]...)
	r.passed -= begun
}

func (r *replacer) pass(until int) {
	if until > r.passed {
		r.ready.Write(r.window[r.passed:until])
		r.passed = until
	}
}

// find looks for each text anew that is not where it was found.
func (r *replacer) find(from int) {
	if from == 0 {
		r.next = append(r.next[:0], make([]int, len(r.texts))...)
	}
	for i := range r.texts {
		if from > 0 && (r.next[i] < 0 || r.next[i] >= from) {
			continue
		}
		if r.next[i] = r.texts[i].index(r.window[from:]); r.next[i] >= 0 {
			r.next[i] += from
		}
	}
}

// first returns the first text that was found.
func (r *replacer) first() (at int, text *replacement) {
	for i, found := range r.next {
		if found >= 0 && (text == nil || found < at) {
			at, text = found, &r.texts[i]
		}
	}
	return at, text
}

// begun returns where the first text begins of which the window may have a part.
func (r *replacer) begun(from int, last bool) int {
	begun := len(r.window)
	if last {
		return begun
	}
	for _, text := range r.texts {
		begun = min(begun, from+beginning(r.window[from:], text.old, 0))
	}
	return begun
}

// held is the same of those of which more is there than may be passed on.
func (r *replacer) held(from int) int {
	held := len(r.window)
	for _, text := range r.texts {
		held = min(held, from+beginning(r.window[from:], text.old, text.early))
	}
	return held
}

// beginning returns where bytes end with more than some bytes of a text, but not with all of it.
func beginning(b, text []byte, some int) int {
	for at := max(0, len(b)-len(text)+1); at < len(b)-some; at++ {
		skip := bytes.IndexByte(b[at:], text[0])
		if skip < 0 {
			break
		}
		if at += skip; at < len(b)-some && bytes.HasPrefix(text, b[at:]) {
			return at
		}
	}
	return len(b)
}
