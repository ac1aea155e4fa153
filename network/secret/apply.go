package secret

import (
	"encoding/base64"
	"mime"
	"net/http"
	"net/url"
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
	f := filling{view: t.view.Load()}
	to, ok := f.view.hosts[host]
	if ok = ok && r.URL.Scheme == "https"; !ok {
		to = &hostView{}
	}
	to = to.at(host, r)
	address := *r.URL
	address.RawQuery = ""
	f.none(r.Method)
	f.none(address.String())
	r.URL.RawQuery = f.query(to.query, r.URL.RawQuery)
	for name, values := range r.Header {
		f.none(name)
		for i, value := range values {
			values[i] = f.header(to.headers[name], value)
		}
	}
	for name := range r.Trailer { // whose values come with the body
		f.none(name)
	}
	if f.rule != "" {
		return f.rule, f.name
	}
	if ok {
		body := to.fillBody(r)
		readable(r, body || f.filled > 0)
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
	rule, name string // why it is not to go
	filled     int    // how many placeholders
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

// put returns a text with its secrets, for which there is no place if p is nil.
func (f *filling) put(p *place, text string) string {
	if p == nil {
		f.none(text)
		return text
	}
	before := f.filled
	for _, e := range p.entries {
		found := strings.Count(text, e.Placeholder)
		f.filled += found
		switch {
		case f.filled > maxPlaceholders:
			f.refuse(RuleMisplaced, e)
		case found > 0 && e.value.IsZero():
			f.refuse(RuleNoValue, e)
		}
	}
	if f.filled == before {
		f.none(text)
		return text
	}
	f.none(p.blank.Replace(text))
	if f.rule != "" {
		return text
	}
	return p.fill.Replace(text)
}

func (f *filling) header(p *place, value string) string {
	if scheme, credentials, ok := strings.Cut(value, " "); ok && strings.EqualFold(scheme, "Basic") {
		if plain, ok := decodeBasic(credentials); ok {
			if filled := f.put(p, plain); filled != plain {
				return scheme + " " + base64.StdEncoding.EncodeToString([]byte(filled))
			}
		}
	}
	return f.put(p, value)
}

// decodeBasic decodes what servers take for credentials, of which some are less strict than RFC 7617.
func decodeBasic(credentials string) (string, bool) {
	credentials = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(strings.TrimSpace(credentials), "="))
	plain, err := base64.RawStdEncoding.DecodeString(credentials)
	return string(plain), err == nil
}

// query leaves each part as it is in which there is no placeholder.
func (f *filling) query(p *place, raw string) string {
	if p == nil || raw == "" {
		f.none(raw)
		return raw
	}
	parts := strings.Split(raw, "&")
	for i, part := range parts {
		name, value, ok := strings.Cut(part, "=")
		if parts[i] = f.component(p, name); ok {
			parts[i] += "=" + f.component(p, value)
		}
	}
	return strings.Join(parts, "&")
}

func (f *filling) component(p *place, escaped string) string {
	plain, err := url.QueryUnescape(escaped)
	if err != nil {
		f.none(escaped)
		return escaped
	}
	if filled := f.put(p, plain); filled != plain {
		return url.QueryEscape(filled)
	}
	return escaped
}

// fillBody has secrets put into the request's body as it is read, if they are for it, and tells whether.
func (h *hostView) fillBody(r *http.Request) bool {
	if r.Body == nil || r.Body == http.NoBody || r.ContentLength == 0 || encoded(r.Header) {
		return false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	var put []replacement
	switch {
	case err != nil || len(r.Header["Content-Type"]) != 1:
	case kind == "application/json" || strings.HasSuffix(kind, "+json"):
		put = h.json
	case kind == "application/x-www-form-urlencoded":
		put = h.form
	}
	if len(put) == 0 {
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
