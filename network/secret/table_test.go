package secret

import (
	"encoding/base64"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

const (
	realToken = "ghp_9fQ2mVxT7wLcZs4KdRbN"
	token     = "ghp_PLACEholderPLACE0001"
	realKey   = `s3cr"t&<+/ %41\=key!`
	key       = `KEY0"0&<+/ %42\=0002`
)

var (
	tokenHost = Host{"api.example.com", 443}
	keyHost   = Host{"key.example.com", 8443}
)

func entries() []Entry {
	return []Entry{
		{Spec{Name: "TOKEN", Hosts: []Host{tokenHost, {"also.example.com", 443}}}, token},
		{Spec{Name: "KEY", Hosts: []Host{keyHost, {"also.example.com", 443}}, Headers: []string{"x-custom", "Authorization"}, Query: true, Body: true}, key},
	}
}

// newTable has two secrets, which have their values.
func newTable(t testing.TB) *Table {
	t.Helper()
	table, err := NewTable(entries()...)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"TOKEN": realToken, "KEY": realKey} {
		if err := table.Set(name, value(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	return table
}

func request(t testing.TB, method, address string, body io.Reader, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, address, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	return r
}

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

// percent writes each byte as a URL may.
func percent(text string) string {
	var b strings.Builder
	for i := range len(text) {
		fmt.Fprintf(&b, "%%%02x", text[i])
	}
	return b.String()
}

func TestSecretsAreWhereTheyBelong(t *testing.T) {
	table := newTable(t)
	for _, c := range []struct {
		name               string
		host               Host
		header, was, isNow string
	}{
		{"a bearer", tokenHost, "Authorization", "Bearer " + token, "Bearer " + realToken},
		{"the password of Basic", tokenHost, "Authorization", basic("git:" + token), basic("git:" + realToken)},
		{"the user of Basic", tokenHost, "Authorization", basic(token + ":"), basic(realToken + ":")},
		{"Basic in small letters, without padding", tokenHost, "Authorization", "basic " + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(token+":")), "="), "basic " + base64.StdEncoding.EncodeToString([]byte(realToken+":"))},
		{"Basic of something else", tokenHost, "Authorization", "Basic " + token, "Basic " + realToken},
		{"a header for keys", tokenHost, "X-Api-Key", token, realToken},
		{"twice", tokenHost, "Private-Token", token + "," + token, realToken + "," + realToken},
		{"within a text", tokenHost, "Authorization", `Token token="` + token + `", x`, `Token token="` + realToken + `", x`},
		{"a part of a placeholder", tokenHost, "Authorization", "Bearer " + token[:len(token)-1], "Bearer " + token[:len(token)-1]},
		{"a header that was named", keyHost, "X-Custom", key, realKey},
		{"two secrets", Host{"also.example.com", 443}, "Authorization", basic(token + ":" + key), basic(realToken + ":" + realKey)},
		{"something else", keyHost, "Cookie", "a=b", "a=b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request(t, "GET", "https://"+c.host.Name+"/", nil, c.header, c.was)
			if rule, name := table.Apply(c.host, r); rule != "" {
				t.Fatalf("refused by %s of %s", rule, name)
			}
			if got := r.Header[c.header]; !slices.Equal(got, []string{c.isNow}) {
				t.Errorf("%q, want %q", got, c.isNow)
			}
		})
	}
}

func TestPlaceholdersElsewhereAreRefused(t *testing.T) {
	table := newTable(t)
	other := Host{"other.example.com", 443}
	for _, c := range []struct {
		name string
		host Host
		r    *http.Request
		want string
	}{
		{"another host", other, request(t, "GET", "https://h/", nil, "Authorization", "Bearer "+token), "TOKEN"},
		{"another port", Host{tokenHost.Name, 8443}, request(t, "GET", "https://h/", nil, "Authorization", "Bearer "+token), "TOKEN"},
		{"the host of another secret", keyHost, request(t, "GET", "https://h/", nil, "Authorization", "Bearer "+token), "TOKEN"},
		{"a host beneath it", Host{"x." + tokenHost.Name, 443}, request(t, "GET", "https://h/", nil, "Authorization", "Bearer "+token), "TOKEN"},
		{"without TLS", tokenHost, request(t, "GET", "http://h/", nil, "Authorization", "Bearer "+token), "TOKEN"},
		{"another host, in Basic", other, request(t, "GET", "https://h/", nil, "Authorization", basic("u:"+token)), "TOKEN"},
		{"a header that is not named", keyHost, request(t, "GET", "https://h/", nil, "X-Api-Key", key), "KEY"},
		{"a cookie", tokenHost, request(t, "GET", "https://h/", nil, "Cookie", "a="+token), "TOKEN"},
		{"a header of another spelling", tokenHost, request(t, "GET", "https://h/", nil, "X_Api_Key", token), "TOKEN"},
		{"the name of a header", tokenHost, request(t, "GET", "https://h/", nil, http.CanonicalHeaderKey(token), "x"), "TOKEN"},
		{"another case", tokenHost, request(t, "GET", "https://h/", nil, "Authorization", "Bearer "+strings.ToUpper(token)), "TOKEN"},
		{"percent signs", tokenHost, request(t, "GET", "https://h/", nil, "Authorization", "Bearer "+percent(token)), "TOKEN"},
		{"beside one that is right", tokenHost, request(t, "GET", "https://h/", nil, "Authorization", token+" "+strings.ToUpper(token)), "TOKEN"},
		{"a part of what Basic has, and in another case", tokenHost, request(t, "GET", "https://h/", nil, "Authorization", basic(token+":"+strings.ToLower(token))), "TOKEN"},
		{"the method", tokenHost, request(t, token, "https://h/", nil), "TOKEN"},
		{"the path", tokenHost, request(t, "GET", "https://h/"+token, nil), "TOKEN"},
		{"the path, escaped", tokenHost, request(t, "GET", "https://h/"+percent(token), nil), "TOKEN"},
		{"the path, escaped twice", tokenHost, request(t, "GET", "https://h/"+strings.ReplaceAll(percent(token), "%", "%25"), nil), "TOKEN"},
		{"the query", tokenHost, request(t, "GET", "https://h/?key="+token, nil), "TOKEN"},
		{"the query, escaped", tokenHost, request(t, "GET", "https://h/?key="+percent(token), nil), "TOKEN"},
		{"the query, escaped twice", keyHost, request(t, "GET", "https://h/?key="+strings.ReplaceAll(percent(key), "%", "%25"), nil), "KEY"},
		{"the query of another secret's host", keyHost, request(t, "GET", "https://h/?key="+token, nil), "TOKEN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule, name := table.Apply(c.host, c.r)
			if rule != RuleMisplaced || name != c.want {
				t.Errorf("%q of %q", rule, name)
			}
		})
	}
	r := request(t, "POST", "https://h/", strings.NewReader("x"))
	r.Trailer = http.Header{http.CanonicalHeaderKey(token): nil}
	if rule, _ := table.Apply(tokenHost, r); rule != RuleMisplaced {
		t.Error("the name of a trailer passes")
	}
}

// A guest that repeats a placeholder gets no memory for it.
func TestAPlaceholderIsNotRepeatedWithoutEnd(t *testing.T) {
	table, err := NewTable(Entry{Spec{Name: "A", Hosts: []Host{tokenHost}, Query: true, Body: true}, token})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Set("A", value(t, strings.Repeat("a", maxValue))); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{maxPlaceholders: "", maxPlaceholders + 1: RuleMisplaced} {
		r := request(t, "GET", "https://h/?a="+token, nil, "Authorization", strings.Repeat(token, n-2), "X-Api-Key", token)
		if rule, _ := table.Apply(tokenHost, r); rule != want {
			t.Errorf("%d times: %q", n, rule)
		}
	}
	r := request(t, "POST", "https://h/", strings.NewReader(strings.Repeat(token, 1000)), "Content-Type", "application/json")
	if rule, _ := table.Apply(tokenHost, r); rule != "" {
		t.Fatal(rule)
	}
	n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r.Body, make([]byte, 64<<10))
	if held := r.Body.(*replacer).ready.Cap(); err != nil || n != 1000*maxValue || held > 1<<20 {
		t.Errorf("%d bytes, %v, of which %d were held at once", n, err, held)
	}
}

func TestQueries(t *testing.T) {
	table := newTable(t)
	for was, isNow := range map[string]string{
		"key=" + url.QueryEscape(key):           "key=" + url.QueryEscape(realKey),
		"a=%zz;&b&key=" + percent(key) + "&c=+": "a=%zz;&b&key=" + url.QueryEscape(realKey) + "&c=+",
		"q=user:" + url.QueryEscape(key):        "q=" + url.QueryEscape("user:"+realKey),
		url.QueryEscape(key):                    url.QueryEscape(realKey),
		"a=b%20c":                               "a=b%20c",
	} {
		r := request(t, "GET", "https://h/", nil)
		r.URL.RawQuery = was
		if rule, name := table.Apply(keyHost, r); rule != "" || r.URL.RawQuery != isNow {
			t.Errorf("%s is %s, want %s; %s %s", was, r.URL.RawQuery, isNow, rule, name)
		}
	}
}

func TestWithoutAValueARequestIsRefused(t *testing.T) {
	table := newTable(t)
	if err := table.Set("TOKEN", Value{}); err != nil {
		t.Fatal(err)
	}
	r := request(t, "GET", "https://h/", nil, "Authorization", basic("u:"+token))
	if rule, name := table.Apply(tokenHost, r); rule != RuleNoValue || name != "TOKEN" {
		t.Errorf("%q of %q", rule, name)
	}
	r = request(t, "GET", "https://h/", nil, "Cookie", token)
	if rule, name := table.Apply(tokenHost, r); rule != RuleMisplaced || name != "TOKEN" {
		t.Errorf("%q of %q", rule, name)
	}
}

func TestAHostIsAskedForWhatCanBeMasked(t *testing.T) {
	table := newTable(t)
	header := []string{"Accept-Encoding", "gzip", "Accept_encoding", "br", "Range", "bytes=0-3", "If-Range", "x", "Request-Range", "bytes=0-3"}
	for _, c := range []struct {
		name string
		host Host
		key  string
		want string
	}{
		{"with a secret", tokenHost, token, "Accept-Encoding: identity, X-Api-Key: " + realToken},
		{"without one", tokenHost, "x", "Accept-Encoding: identity, If-Range: x, Range: bytes=0-3, Request-Range: bytes=0-3, X-Api-Key: x"},
		{"to another host", Host{"other.example.com", 443}, "x", "Accept-Encoding: gzip, Accept_encoding: br, If-Range: x, Range: bytes=0-3, Request-Range: bytes=0-3, X-Api-Key: x"},
	} {
		r := request(t, "GET", "https://h/", nil, append(header, "X-Api-Key", c.key)...)
		if rule, _ := table.Apply(c.host, r); rule != "" {
			t.Fatal(rule)
		}
		var got []string
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			got = append(got, name+": "+strings.Join(r.Header[name], "|"))
		}
		if got := strings.Join(got, ", "); got != c.want {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.want)
		}
	}
}

// slowly is a source that gives some bytes at a time.
type slowly struct {
	text  string
	sizes func() int
}

func (s *slowly) Read(b []byte) (int, error) {
	if s.text == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), s.sizes())], s.text)
	s.text = s.text[n:]
	return n, nil
}

func TestBodies(t *testing.T) {
	table := newTable(t)
	inJSON := func(text string) string { return strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) }
	for _, c := range []struct{ name, kind, encoding, was, isNow string }{
		{"JSON", "application/json; charset=utf-8", "", `{"a":"` + inJSON(key) + `","b":["` + inJSON(key) + `"]}`, `{"a":"` + inJSON(realKey) + `","b":["` + inJSON(realKey) + `"]}`},
		{"other JSON", "application/vnd.api+json", "identity", `"` + inJSON(key) + `"`, `"` + inJSON(realKey) + `"`},
		{"a form", "application/x-www-form-urlencoded", "", "a=" + url.QueryEscape(key) + "&b=" + url.QueryEscape(key[:9]), "a=" + url.QueryEscape(realKey) + "&b=" + url.QueryEscape(key[:9])},
		{"text", "text/plain", "", key, key},
		{"no kind", "", "", key, key},
		{"what is compressed", "application/json", "gzip", inJSON(key), inJSON(key)},
		{"another secret, which is not for bodies", "application/json", "", token, token},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request(t, "POST", "https://h/", io.MultiReader(&slowly{c.was, func() int { return 1 }}), "Content-Type", c.kind, "Content-Length", "0")
			if c.kind == "" {
				r.Header.Del("Content-Type")
			}
			if c.encoding != "" {
				r.Header.Set("Content-Encoding", c.encoding)
			}
			r.ContentLength = int64(len(c.was))
			if rule, _ := table.Apply(Host{"also.example.com", 443}, r); rule != "" {
				t.Fatal(rule)
			}
			got, err := io.ReadAll(r.Body)
			if err != nil || string(got) != c.isNow {
				t.Errorf("%s, %v, want %s", got, err, c.isNow)
			}
			if r.ContentLength >= 0 && r.ContentLength != int64(len(got)) || r.ContentLength < 0 && r.Header.Get("Content-Length") != "" {
				t.Errorf("the length is %d, of %d", r.ContentLength, len(got))
			}
		})
	}
}

func TestALengthThatStaysIsKept(t *testing.T) {
	table, err := NewTable(Entry{Spec{Name: "A", Hosts: []Host{tokenHost}, Body: true}, token})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Set("A", value(t, realToken)); err != nil {
		t.Fatal(err)
	}
	r := request(t, "POST", "https://h/", strings.NewReader(token), "Content-Type", "application/json")
	if rule, _ := table.Apply(tokenHost, r); rule != "" || r.ContentLength != int64(len(token)) {
		t.Errorf("%q, %d", rule, r.ContentLength)
	}
	answer := &http.Response{StatusCode: 200, Header: http.Header{"Content-Length": {"24"}}, ContentLength: 24, Body: io.NopCloser(strings.NewReader(realToken))}
	table.Mask(tokenHost, answer)
	if got, err := io.ReadAll(answer.Body); err != nil || string(got) != token || answer.ContentLength != 24 || answer.Header.Get("Content-Length") != "24" {
		t.Errorf("%s, %v, %d", got, err, answer.ContentLength)
	}
}

func TestTables(t *testing.T) {
	table := newTable(t)
	if got := fmt.Sprint(table.Hosts()); got != "[api.example.com also.example.com key.example.com:8443]" {
		t.Error(got)
	}
	if err := table.Set("OTHER", Value{}); err == nil {
		t.Error("a name that there is not has a value")
	}
	if got := table.Spec("KEY").Headers; !slices.Equal(got, []string{"X-Custom", "Authorization"}) {
		t.Errorf("%q", got)
	}
	if !slices.Contains(table.Spec("TOKEN").Headers, "Authorization") {
		t.Error("there are no headers where none are named")
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		if got := fmt.Sprintf(verb+verb, table, struct{ t *Table }{table}); strings.Contains(got, realToken) || strings.Contains(got, realKey) {
			t.Errorf("%s: %s", verb, got)
		}
	}
	var none *Table
	r := request(t, "GET", "https://h/", nil, "Authorization", token)
	none.Mask(tokenHost, &http.Response{})
	none.MaskHeader(tokenHost, r.Header)
	if rule, _ := none.Apply(tokenHost, r); rule != "" || none.Hosts() != nil {
		t.Error("a table that is not there has secrets")
	}
	for _, c := range [][]Entry{
		{{Spec{Name: "A"}, ""}},
		{{Spec{Name: "A"}, "one"}, {Spec{Name: "A"}, "two"}},
		{{Spec{Name: "A"}, "one"}, {Spec{Name: "B"}, "ONE"}},
		{{Spec{Name: "A"}, "one and more"}, {Spec{Name: "B"}, "One"}},
	} {
		if _, err := NewTable(c...); err == nil {
			t.Errorf("%v is a table", c)
		}
	}
}

// FuzzApply has a guest write what it likes: a secret is nowhere but in the headers and the query that it is for.
func FuzzApply(f *testing.F) {
	f.Add("GET", "/a?b="+token, "Authorization", "Bearer "+token, "Cookie", token, true)
	f.Add("GET", "/"+percent(token), "authorization", basic("u:"+token), "Connection", "authorization", true)
	f.Add(token, "/%25%37%30", "X-Api-Key", token+token, token, "x", false)
	f.Add("POST", "/?"+url.QueryEscape(key)+"=%", "X-Custom", key, "Authorization", "basic "+key, true)
	f.Add("GET", "//user:"+token+"@h/#"+token, "Accept-Encoding", token, "accept_encoding", token, true)
	table := newTable(f)
	hosts := []Host{tokenHost, keyHost, {"also.example.com", 443}, {"other.example.com", 443}}
	f.Fuzz(func(t *testing.T, method, target, name, text, name2, text2 string, over bool) {
		for _, host := range hosts {
			u, err := url.ParseRequestURI(target)
			if err != nil {
				return
			}
			if u.Scheme = "http"; over {
				u.Scheme = "https"
			}
			u.Host = host.Name
			r := &http.Request{Method: method, URL: u, Header: http.Header{}, Trailer: http.Header{}}
			for _, name := range []string{name, http.CanonicalHeaderKey(name)} {
				r.Header[name] = []string{text, text2}
			}
			r.Header[name2], r.Trailer[name2] = []string{text2}, nil
			before := r.Clone(t.Context())
			if rule, secret := table.Apply(host, r); rule != "" {
				if secret != "TOKEN" && secret != "KEY" {
					t.Errorf("%s of %q", rule, secret)
				}
				continue
			}
			// What was not in the request, and is in it now.
			news := func(where string, entitled bool, was, is string) {
				for _, c := range []struct {
					value string
					hosts []Host
					ok    bool
				}{{realToken, table.Spec("TOKEN").Hosts, entitled && where != "the query" && where != "X-Custom"}, {realKey, table.Spec("KEY").Hosts, where == "the query" || where == "X-Custom" || where == "Authorization"}} {
					if strings.Count(is, c.value) > strings.Count(was, c.value) && (!c.ok || !over || !slices.Contains(c.hosts, host)) {
						t.Errorf("%s has %s on the way to %v: %q", where, c.value, host, is)
					}
				}
			}
			plain := func(text string) string {
				if scheme, credentials, ok := strings.Cut(text, " "); ok && strings.EqualFold(scheme, "basic") {
					if decoded, ok := decodeBasic(credentials); ok {
						return decoded + "\n" + text
					}
				}
				return text
			}
			query := func(u *url.URL) string { return unescape(strings.ReplaceAll(u.RawQuery, "+", " ")) }
			news("the query", true, query(before.URL), query(r.URL))
			if r.Method != before.Method || r.URL.EscapedPath() != before.URL.EscapedPath() || r.URL.Host != before.URL.Host || len(r.Trailer) != len(before.Trailer) {
				t.Errorf("%s %s is %s %s", before.Method, before.URL, r.Method, r.URL)
			}
			for name, values := range r.Header {
				if _, ok := before.Header[name]; !ok && name != "Accept-Encoding" {
					t.Errorf("there is a header %q", name)
				}
				if name == "Accept-Encoding" {
					continue
				}
				for i := range values {
					news(name, slices.Contains(defaultHeaders, name), plain(before.Header[name][i]), plain(values[i]))
				}
			}
		}
	})
}

// As at the start of a sandbox with as many secrets as there may be, each with its value.
func BenchmarkSet(b *testing.B) {
	for range b.N {
		const secrets = 64
		var entries []Entry
		for i := range secrets {
			entries = append(entries, Entry{Spec: Spec{Name: fmt.Sprint("NAME", i), Hosts: []Host{{Name: "a.example", Port: 443}}}, Placeholder: fmt.Sprintf("placeholder-%02d", i)})
		}
		table, err := NewTable(entries...)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range entries {
			if err := table.Set(e.Spec.Name, value(b, "the-secret-of-"+e.Spec.Name)); err != nil {
				b.Fatal(err)
			}
		}
		table.Hosts()
	}
}
