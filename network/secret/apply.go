package secret

import (
	"encoding/base64"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// maxPlaceholders is how many there may be in the head of a request. With as many as fit into one, and a long secret, a guest
// would have its network take much memory.
const maxPlaceholders = 16

// Apply puts secrets in the place of their placeholders in a request that is about to go to the host, whose name is in
// small letters. If the request is not to go, it returns the rule and the name of the secret, and the request is not
// to be used any more. A nil table has no secrets.
//
// The request goes over TLS if its URL's scheme says so; otherwise no host is one of a secret's.
func (t *Table) Apply(host Host, r *http.Request) (rule, name string) {
	if t == nil {
		return "", ""
	}
	f := filling{view: t.now()}
	to, ok := f.view.hostOf(host)
	if ok = ok && r.URL.Scheme == "https"; ok {
		f.here = to.at(host, r)
	}
	signed := f.signed(r)
	address := *r.URL
	address.RawQuery = ""
	f.none(r.Method)
	f.none(address.String())
	r.URL.RawQuery = f.query(f.placed(inQuery), r.URL.RawQuery)
	for name, values := range r.Header {
		f.none(name)
		in := f.placed(func(s Spec) bool { return slices.Contains(s.Headers, name) })
		if signed != nil && name == "Authorization" {
			f.none(strings.Replace(values[0], signed.of.KeyID, "", 1))
			continue
		}
		for i, value := range values {
			values[i] = f.header(in, value)
		}
	}
	for name := range r.Trailer { // whose values come with the body
		f.none(name)
	}
	if f.rule != "" {
		return f.rule, f.name
	}
	if ok {
		body := f.body(r)
		readable(r, body || f.filled > 0)
	}
	if signed != nil { // what is as it is to leave now
		if rule := t.sign(r, signed); rule != "" {
			return rule, signed.entry.Spec.Name
		}
	}
	return "", ""
}

// readable has the host answer in a way that can be masked: not compressed, and a request that has a secret not in parts,
// each of which could have a part of it.
func readable(r *http.Request, filled bool) {
	for name := range r.Header {
		switch strings.ToLower(strings.ReplaceAll(name, "_", "-")) { // which are the same to some
		case "accept-encoding":
			delete(r.Header, name)
		case "range", "request-range", "if-range":
			if filled {
				delete(r.Header, name)
			}
		}
	}
	r.Header.Set("Accept-Encoding", "identity")
}

// filling is the work on one request.
type filling struct {
	view       *view
	here       []entry // those that are for the request
	rule, name string  // why it is not to go
	filled     int     // how many placeholders
}

func inQuery(s Spec) bool { return s.Query }

func inBody(s Spec) bool { return s.Body }

// placed are the secrets that are for the request, and for a place in it.
func (f *filling) placed(in func(Spec) bool) (placed []entry) {
	for _, e := range f.here {
		if in(e.Spec) && !e.Spec.AWS() {
			placed = append(placed, e)
		}
	}
	return placed
}

func (f *filling) refuse(rule string, e entry) {
	if f.rule == "" {
		f.rule, f.name = rule, e.Spec.Name
	}
}

// none refuses text in which there is a placeholder, however it is written.
func (f *filling) none(text string) {
	folded, plain := strings.ToLower(text), ""
	if strings.Contains(text, "%") {
		plain = strings.ToLower(unescape(text))
	}
	for _, e := range f.view.entries {
		if strings.Contains(folded, e.folded) || plain != "" && strings.Contains(plain, e.plain) {
			f.refuse(RuleMisplaced, e)
		}
	}
}

// put returns a text with its secrets, of those that are for its place.
func (f *filling) put(placed []entry, text string) string {
	var fill, blank []string
	for _, e := range placed {
		found := strings.Count(text, e.Placeholder)
		if found == 0 {
			continue
		}
		if f.filled += found; f.filled > maxPlaceholders {
			f.refuse(RuleMisplaced, e)
		} else if e.value.IsZero() {
			f.refuse(RuleNoValue, e)
		}
		fill = append(fill, e.Placeholder, e.value.Reveal())
		blank = append(blank, e.Placeholder, "\x00") // which no placeholder has, so that nothing grows together
	}
	if fill == nil {
		f.none(text)
		return text
	}
	f.none(strings.NewReplacer(blank...).Replace(text))
	if f.rule != "" {
		return text
	}
	return strings.NewReplacer(fill...).Replace(text)
}

func (f *filling) header(placed []entry, value string) string {
	if scheme, credentials, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Basic") {
		if plain, ok := decodeBasic(credentials); ok {
			if filled := f.put(placed, plain); filled != plain {
				return scheme + " " + base64.StdEncoding.EncodeToString([]byte(filled))
			}
		}
	}
	return f.put(placed, value)
}

// decodeBasic decodes what servers take for credentials, of which some are less strict than RFC 7617.
func decodeBasic(credentials string) (string, bool) {
	credentials = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(strings.TrimSpace(credentials), "="))
	plain, err := base64.RawStdEncoding.DecodeString(credentials)
	return string(plain), err == nil
}

// query leaves each part as it is in which there is no placeholder.
func (f *filling) query(placed []entry, raw string) string {
	if placed == nil || raw == "" {
		f.none(raw)
		return raw
	}
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		name, value, ok := strings.Cut(part, "=")
		if parts[i] = f.component(placed, name); ok {
			parts[i] += "=" + f.component(placed, value)
		}
	}
	return strings.Join(parts, "&")
}

func (f *filling) component(placed []entry, escaped string) string {
	plain, err := url.QueryUnescape(escaped)
	if err != nil {
		f.none(escaped)
		return escaped
	}
	if filled := f.put(placed, plain); filled != plain {
		return url.QueryEscape(filled)
	}
	return escaped
}

// body has secrets put into the request's body as it is read, if they are for it, and tells whether.
func (f *filling) body(r *http.Request) bool {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || encoded(r.Header) {
		return false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var in func(entry) []replacement
	switch {
	case err != nil || len(r.Header["Content-Type"]) != 1:
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		in = jsonReplacements
	case kind == "application/x-www-form-urlencoded":
		in = formReplacements
	}
	if in == nil {
		return false
	}
	var put []replacement
	for _, e := range f.placed(inBody) {
		if !e.value.IsZero() {
			put = append(put, in(e)...)
		}
	}
	if put == nil {
		return false
	}
	r.Body = &replacer{Closer: r.Body, source: r.Body, texts: put}
	if !sameLength(put) {
		r.ContentLength = -1
		r.Header.Del("Content-Length")
	}
	return true
}

// encoded tells whether a body is compressed, or something like that.
func encoded(h http.Header) bool {
	for _, value := range h["Content-Encoding"] {
		if value != "" && !strings.EqualFold(value, "identity") {
			return true
		}
	}
	return false
}

// unescape decodes what is percent-encoded, however often.
func unescape(text string) string {
	plain := make([]byte, 0, len(text))
	for i := range len(text) {
		plain = append(plain, text[i])
		for n := len(plain); n >= 3 && plain[n-3] == '%'; n = len(plain) {
			high, ok := hex(plain[n-2])
			low, ok2 := hex(plain[n-1])
			if !ok || !ok2 {
				break
			}
			plain = append(plain[:n-3], high<<4|low)
		}
	}
	return string(plain)
}

func hex(digit byte) (byte, bool) {
	switch {
	case '0' <= digit && digit <= '9':
		return digit - '0', true
	case 'a' <= digit|0x20 && digit|0x20 <= 'f':
		return digit | 0x20 - 'a' + 10, true
	}
	return 0, false
}
