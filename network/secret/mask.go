package secret

import (
	"cmp"
	"encoding/base64"
	"html"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	// minMasked is the length of the shortest text that is masked. Shorter ones are in many answers that do not tell of a
	// secret, and what is masked there would.
	minMasked = 8
	// maxEarly is how much of a secret may be passed on at the end of what has come so far: it is no use to anybody, and
	// messages of which the last bytes are held back would have both sides wait.
	maxEarly = 3
)

// Mask puts placeholders in the place of secrets in what the host answers to such a request. It reads nothing yet.
func (t *Table) Mask(host Host, r *http.Response) {
	if t == nil {
		return
	}
	from, ok := t.now().hostOf(host)
	if !ok {
		return
	}
	from.mask(r.Header)
	if r.StatusCode == http.StatusSwitchingProtocols || r.Body == nil {
		return // what follows is no HTTP
	}
	body := &replacer{Closer: r.Body, source: r.Body}
	body.end = func() { from.mask(r.Trailer) } // which came with it
	empty := r.StatusCode == http.StatusNoContent || r.StatusCode == http.StatusNotModified || r.Request != nil && r.Request.Method == http.MethodHead
	if !empty { // also if it is said to be compressed: a guest may have a host say so
		body.texts = from.masks
		if !sameLength(from.masks) {
			r.ContentLength = -1
			r.Header.Del("Content-Length")
		}
	}
	r.Body = body
}

// MaskHeader does the same to the header of an answer that is not the last one, such as 103 (Early Hints).
func (t *Table) MaskHeader(host Host, h http.Header) {
	if t == nil {
		return
	}
	if from, ok := t.now().hostOf(host); ok {
		from.mask(h)
	}
}

func (h *hostView) mask(header http.Header) {
	for _, values := range header {
		for i, value := range values {
			values[i] = h.text.Replace(value)
		}
	}
}

// masks are the forms in which a host may repeat a secret, each with the placeholder in that form.
func masks(entries []entry) []replacement {
	var all []replacement
	seen := map[string]bool{}
	for _, e := range entries {
		if e.Spec.AWS() {
			all = append(all, masksOfAWS(e)...)
			continue
		}
		for _, value := range []Value{e.value, e.previous} {
			if len(value.Reveal()) < minMasked {
				continue
			}
			for _, form := range forms {
				old := form(value.Reveal())
				if len(old) < minMasked || seen[old] {
					continue
				}
				seen[old] = true
				r := newReplacement(old, form(e.Placeholder))
				r.early = max(r.early, min(maxEarly, len(old)/minMasked))
				all = append(all, r)
			}
		}
	}
	// The longest of those that begin alike is what a host has repeated.
	slices.SortStableFunc(all, func(a, b replacement) int { return cmp.Compare(len(b.old), len(a.old)) })
	return all
}

var forms = []func(string) string{
	func(text string) string { return text },
	url.QueryEscape,
	url.PathEscape,
	inJSON,
	func(text string) string { return angles.Replace(inJSON(text)) },
	html.EscapeString,
	within(base64.RawStdEncoding, 0), within(base64.RawStdEncoding, 1), within(base64.RawStdEncoding, 2),
	within(base64.RawURLEncoding, 0), within(base64.RawURLEncoding, 1), within(base64.RawURLEncoding, 2),
}

var (
	quotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)
	angles = strings.NewReplacer("<", `\u003c`, ">", `\u003e`, "&", `\u0026`) // as encoding/json and others have them
)

// inJSON is printable ASCII in a string of JSON.
func inJSON(text string) string { return quotes.Replace(text) }

// within returns what is in base64 of any text that has the text in it, such as credentials of Basic, if as many bytes stand
// before it as shift says, or three more. The characters at both ends, in which there are other bytes too, are left out: they
// hold four bits of the text at most.
func within(e *base64.Encoding, shift int) func(string) string {
	return func(text string) string {
		encoded := e.EncodeToString([]byte(strings.Repeat("\x00", shift) + text))
		return encoded[(shift*8+5)/6 : (shift+len(text))*8/6]
	}
}

// jsonReplacements are for bodies of requests.
func jsonReplacements(e entry) []replacement {
	return []replacement{newReplacement(inJSON(e.Placeholder), inJSON(e.value.Reveal()))}
}

func formReplacements(e entry) []replacement {
	value := url.QueryEscape(e.value.Reveal())
	all := []replacement{newReplacement(url.QueryEscape(e.Placeholder), value)}
	if string(all[0].old) != e.Placeholder {
		all = append(all, newReplacement(e.Placeholder, value)) // by clients that escape less
	}
	return all
}

func textReplacer(texts []replacement) *strings.Replacer {
	var pairs []string
	for _, r := range texts {
		pairs = append(pairs, string(r.old), r.new)
	}
	return strings.NewReplacer(pairs...)
}
