package proxy

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/refusal"
	"github.com/sourcery-zone/sandbox/network/secret"
)

const (
	realToken = "ghp_9fQ2mVxT7wLcZs4KdRbN"
	token     = "ghp_PLACEholderPLACE0001"
	realKey   = "5f3a-short-key"
	key       = "0000placeholder000000002"
)

// withSecrets has one secret in headers, and one, of another length than its placeholder, everywhere it can be.
func withSecrets(t testing.TB, hosts ...string) change {
	var names []secret.Host
	for _, name := range hosts {
		names = append(names, secret.Host{Name: name, Port: 443})
	}
	table, err := secret.NewTable(
		secret.Entry{Spec: secret.Spec{Name: "TOKEN", Hosts: names}, Placeholder: token},
		secret.Entry{Spec: secret.Spec{Name: "KEY", Hosts: names, Query: true, Body: true}, Placeholder: key},
		secret.Entry{Spec: secret.Spec{Name: "NONE", Hosts: names}, Placeholder: "no-value-for-this-one"},
	)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"TOKEN": realToken, "KEY": realKey} {
		v, err := secret.NewValue(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Set(name, v); err != nil {
			t.Fatal(err)
		}
	}
	return func(_ *lab, o *Options) { o.Secrets = table }
}

func basic(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }

// ask returns an answer, in whose header Early has what came before it.
func ask(t testing.TB, client *http.Client, method, path string, body io.Reader, header ...string) (*http.Response, string) {
	t.Helper()
	var early []string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		early = append(early, fmt.Sprint(code, h))
		return nil
	}})
	r, err := http.NewRequestWithContext(ctx, method, "https://"+host+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header[header[i]] = append(r.Header[header[i]], header[i+1])
	}
	response, err := client.Do(r)
	text := read(t, response, err)
	if early != nil {
		response.Header["Early"] = early
	}
	return response, text
}

// TestTheHostGetsSecretsAndTheGuestPlaceholders has a host that repeats all that it gets.
func TestTheHostGetsSecretsAndTheGuestPlaceholders(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		var seen atomic.Pointer[string]
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			text := r.Method + " " + r.RequestURI + "\n"
			for _, name := range []string{"Authorization", "X-Api-Key", "Private-Token"} {
				for _, value := range r.Header[name] {
					text += name + ": " + value + "\n"
					w.Header().Add("X-Echo", value)
				}
			}
			user, password, _ := r.BasicAuth()
			b, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			text += user + "\n" + password + "\n" + string(b)
			seen.Store(&text)
			w.Header().Set("Trailer", "X-Last")
			w.Header().Set("Link", "<"+r.Header.Get("Authorization")+">; rel=preload")
			w.WriteHeader(http.StatusEarlyHints)
			for _, piece := range []string{text[:len(text)/2], text[len(text)/2:]} {
				fmt.Fprint(w, piece)
				_ = http.NewResponseController(w).Flush()
			}
			w.Header().Set("X-Last", r.Header.Get("Authorization"))
		}), everything, withSecrets(t, host))
		client := l.client(h2)
		for _, c := range []struct {
			name, method, path, body, kind string
			header                         []string
			want                           []string
		}{
			{"a bearer", "GET", "/", "", "", []string{"Authorization", "Bearer " + token}, []string{"Authorization: Bearer " + realToken}},
			{"the password of Basic", "GET", "/", "", "", []string{"Authorization", basic("git:" + token)}, []string{"\ngit\n" + realToken}},
			{"the user of Basic", "GET", "/", "", "", []string{"Authorization", basic(token + ":")}, []string{"\n" + realToken + "\n"}},
			{"two secrets", "GET", "/", "", "", []string{"Authorization", "Bearer " + token, "X-Api-Key", key}, []string{"Bearer " + realToken, "X-Api-Key: " + realKey}},
			{"twice", "GET", "/", "", "", []string{"Private-Token", token, "Private-Token", token + " " + token}, []string{"Private-Token: " + realToken + "\nPrivate-Token: " + realToken + " " + realToken}},
			{"the beginning of a placeholder", "GET", "/", "", "", []string{"Authorization", "Bearer " + token[:20]}, []string{"Bearer " + token[:20] + "\n"}},
			{"the query", "GET", "/a?b=%20c&key=" + key + "&d", "", "", nil, []string{"GET /a?b=%20c&key=" + realKey + "&d\n"}},
			{"JSON", "POST", "/", `{"key":"` + key + `","token":"` + token + `"}`, "application/json", nil, []string{`{"key":"` + realKey + `","token":"` + token + `"}`}},
			{"a form", "POST", "/", "a=b&key=" + key, "application/x-www-form-urlencoded", nil, []string{"a=b&key=" + realKey}},
			{"another body", "POST", "/", key + token, "text/plain", nil, []string{key + token}},
		} {
			t.Run(c.name, func(t *testing.T) {
				var body io.Reader
				if c.body != "" {
					body = strings.NewReader(c.body)
					c.header = append(c.header, "Content-Type", c.kind)
				}
				r, text := ask(t, client, c.method, c.path, body, c.header...)
				for _, part := range c.want {
					if got := *seen.Load(); !strings.Contains(got, part) {
						t.Errorf("the host did not get %q, but\n%s", part, got)
					}
				}
				all := fmt.Sprintf("%s\n%v\n%v", text, r.Header, r.Trailer)
				for _, real := range []string{realToken, realKey, basic("git:" + realToken)[len("Basic "):], basic(realToken + ":")[len("Basic "):]} {
					if strings.Contains(all, real) {
						t.Errorf("the guest gets %s in\n%s", real, all)
					}
				}
				if early := fmt.Sprint(r.Header["Early"]); !strings.Contains(early, "103 map") || strings.Contains(strings.Join(c.header, " "), "Bearer "+token) && !strings.Contains(early, token) {
					t.Errorf("early hints are %s", early)
				}
				if want := strings.NewReplacer(realToken, token, realKey, key).Replace(*seen.Load()); text != want && !strings.Contains(c.name, "Basic") {
					t.Errorf("the guest gets\n%s\nwant\n%s", text, want)
				}
				if r.Header.Get("Content-Length") != "" && c.body != "" {
					t.Error("the length of a body that is masked by a text of another length is known")
				}
			})
		}
	})
}

func TestAPlaceholderThatIsMisplacedIsRefused(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		for _, to := range []string{host, "other.example.com"} {
			var seen atomic.Int32
			l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen.Add(1) }), everything, withSecrets(t, to))
			client := l.client(h2)
			r, _ := ask(t, client, "GET", "/", nil)
			if seen.Load() != 1 || r.StatusCode != http.StatusOK {
				t.Fatal(r.Status)
			}
			percent := strings.ReplaceAll(token, "P", "%50")
			cases := []struct {
				name, path, rule string
				header           []string
			}{
				{"a cookie", "/", "secret-misplaced", []string{"Cookie", "a=" + token}},
				{"the path", "/a/" + token, "secret-misplaced", nil},
				{"the path, escaped", "/" + percent, "secret-misplaced", nil},
				{"the query", "/?a=" + token, "secret-misplaced", nil},
				{"the query, escaped", "/?a=" + percent, "secret-misplaced", nil},
				{"the query, escaped twice", "/?a=" + strings.ReplaceAll(percent, "%", "%25"), "secret-misplaced", nil},
				{"another header", "/", "secret-misplaced", []string{"X-Other", token}},
				{"a header's name", "/", "secret-misplaced", []string{http.CanonicalHeaderKey(token), "a"}},
				{"another case", "/", "secret-misplaced", []string{"Authorization", strings.ToLower(token)}},
				{"X-Forwarded-For", "/", "secret-misplaced", []string{"X-Forwarded-For", token}},
			}
			if to != host {
				cases = append(cases, []struct {
					name, path, rule string
					header           []string
				}{
					{"a bearer", "/", "secret-misplaced", []string{"Authorization", "Bearer " + token}},
					{"Basic", "/", "secret-misplaced", []string{"Authorization", basic("u:" + token)}},
					{"a query that is right elsewhere", "/?key=" + key, "secret-misplaced", nil},
				}...)
			} else {
				cases = append(cases, cases[0])
				last := &cases[len(cases)-1]
				last.name, last.rule, last.header = "no value", "secret-missing", []string{"X-Api-Key", "no-value-for-this-one"}
			}
			for _, c := range cases {
				r, body := ask(t, client, "POST", c.path, strings.NewReader("body"), append(c.header, "Accept", "application/json")...)
				var got refusal.Refusal
				if err := json.Unmarshal([]byte(body), &got); err != nil || r.StatusCode != http.StatusForbidden || r.Header.Get(refusal.Header) != c.rule || got.Secret == nil || r.Close {
					t.Errorf("%s to %s: %d %v\n%s", c.name, to, r.StatusCode, r.Header, body)
					continue
				}
				if got.Secret.Hosts[0] != to || got.Secret.Name == "" || strings.Contains(body, realToken) || strings.Contains(body, realKey) || r.Header.Get("Date") == "" {
					t.Errorf("%s to %s: %v\n%s", c.name, to, r.Header, body)
				}
				path, _, _ := strings.Cut(c.path, "?")
				l.refusal(c.rule + " POST " + path)
			}
			if seen.Load() != 1 {
				t.Error("the host was asked what is refused")
			}
			if r, _ := ask(t, client, "GET", "/", nil); r.StatusCode != http.StatusOK {
				t.Errorf("after that: %s", r.Status)
			}
		}
	})
}

// TestARedirectTakesNoSecretElsewhere has a host that sends on whoever asks it, with what it got.
func TestARedirectTakesNoSecretElsewhere(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		var asked atomic.Int32
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			got := r.Header.Get("Authorization")
			w.Header().Set("Location", "https://other.example.com/"+url.PathEscape(got)+"?key="+url.QueryEscape(got))
			w.Header().Set("Refresh", "0; url=https://other.example.com/?key="+got)
			w.WriteHeader(http.StatusTemporaryRedirect)
		}), everything, withSecrets(t, host))
		r, _ := ask(t, l.client(h2), "GET", "/", nil, "Authorization", "Bearer "+token)
		if want := "https://other.example.com/Bearer%20" + token + "?key=Bearer+" + token; r.StatusCode != http.StatusTemporaryRedirect || r.Header.Get("Location") != want {
			t.Errorf("%s %v", r.Status, r.Header)
		}
		if got := r.Header.Get("Refresh"); !strings.HasSuffix(got, token) || asked.Load() != 1 {
			t.Errorf("%s; the host was asked %d times", got, asked.Load())
		}
	})
}

func TestNoSecretGoesWithoutTLS(t *testing.T) {
	for _, scheme := range []string{"http", "https"} { // the second one has the secret's port
		l := newLab(t, scheme, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the host was asked") }), append(everything, "http://"+host+":443/**"), withSecrets(t, host))
		c, err := l.dialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s:%d\r\nAuthorization: Bearer %s\r\n\r\n", host, l.port, token)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if text := read(t, r, err); r.Header.Get(refusal.Header) != "secret-misplaced" {
			t.Errorf("%s %s", r.Status, text)
		}
		c.Close()
	}
}

// TestHeadsThatSayTwoThings has what one part of the way may read, and another one not.
func TestHeadsThatSayTwoThings(t *testing.T) {
	seen := make(chan string, 10)
	l := newLab(t, "https", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- fmt.Sprintf("%v %v %v", r.Header, r.Trailer, r.TransferEncoding)
	}), everything, withSecrets(t, host))
	head := "POST / HTTP/1.1\r\nHost: " + host + "\r\n"
	for _, c := range []struct {
		name, text string
		status     int
		want       []string
		not        []string
	}{
		{"Connection names the header", head + "Connection: authorization\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 0\r\n\r\n", 200, nil, []string{realToken, token}},
		{"Connection names what keeps an answer readable", head + "Connection: accept-encoding\r\nAccept-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 200, []string{"Accept-Encoding:[identity]"}, []string{"gzip"}},
		{"TE", head + "TE: trailers, gzip\r\nContent-Length: 0\r\n\r\n", 200, []string{"Te:[trailers]"}, []string{"gzip"}},
		{"a trailer", head + "Transfer-Encoding: chunked\r\nTrailer: Authorization, X-Sum\r\n\r\n0\r\nAuthorization: " + token + "\r\nX-Sum: " + token + "\r\n\r\n", 200, []string{"Authorization:[" + token + "]"}, []string{realToken}},
		{"another trailer", head + "Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n0\r\nX-Api-Key: " + token + "\r\nX-Sum: " + token + "\r\n\r\n", 200, []string{"X-Sum:[" + token + "]"}, []string{realToken}},
		{"a trailer's name", head + "Transfer-Encoding: chunked\r\nTrailer: " + token + "\r\n\r\n0\r\n\r\n", 403, nil, nil},
		{"a header twice", head + "Authorization: a\r\nAuthorization: Bearer " + token + "\r\nContent-Length: 0\r\n\r\n", 200, []string{"Authorization:[a Bearer " + realToken + "]"}, nil},
		{"a folded line", head + "Authorization: Bearer\r\n " + token + "\r\nContent-Length: 0\r\n\r\n", 200, []string{"Authorization:[Bearer " + realToken + "]"}, nil},
		{"an underscore", head + "X_Api_Key: " + token + "\r\nContent-Length: 0\r\n\r\n", 403, nil, nil},
		{"length and chunks", head + "Authorization: Bearer " + token + "\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, []string{realToken, "[chunked]"}, nil},
		{"two lengths", head + "Authorization: Bearer " + token + "\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcd", 400, nil, nil},
		{"another host", "GET / HTTP/1.1\r\nHost: other.example\r\nAuthorization: Bearer " + token + "\r\n\r\n", 403, nil, nil},
		{"an absolute target", "GET https://" + host + "/" + token + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, nil, nil},
		{"a fragment", "GET /#" + token + " HTTP/1.1\r\nHost: " + host + "\r\n\r\n", 403, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := l.raw("http/1.1")
			go func() { _, _ = io.WriteString(conn, c.text) }()
			r, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil || r.StatusCode != c.status {
				t.Fatalf("%v, %v", r, err)
			}
			if c.status != 200 {
				if len(seen) > 0 {
					t.Errorf("the host got %s", <-seen)
				}
				return
			}
			got := <-seen
			for _, part := range c.want {
				if !strings.Contains(got, part) {
					t.Errorf("%q is not in what the host got: %s", part, got)
				}
			}
			for _, part := range c.not {
				if strings.Contains(got, part) {
					t.Errorf("%q is in what the host got: %s", part, got)
				}
			}
		})
	}
}

func TestAStreamIsMaskedAsItComes(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		more := make(chan struct{})
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			got := r.Header.Get("Authorization")
			for _, event := range []string{"data: a\n\n", "g", "gh", "data: " + got + "\n\n", "5"} {
				fmt.Fprint(w, event)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-more: // each is with the guest before there is another one
				case <-r.Context().Done():
					return
				}
			}
			for i := range got {
				fmt.Fprint(w, got[i:i+1])
				_ = http.NewResponseController(w).Flush()
			}
		}), everything, withSecrets(t, host))
		r, err := http.NewRequest("GET", "https://"+host+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", token)
		response, err := l.client(h2).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		for _, event := range []string{"data: a\n\n", "g", "gh", "data: " + token + "\n\n", "5"} {
			b := make([]byte, len(event))
			if _, err := io.ReadFull(response.Body, b); err != nil || string(b) != event {
				t.Fatalf("%q, %v", b, err)
			}
			more <- struct{}{}
		}
		if rest, err := io.ReadAll(response.Body); err != nil || string(rest) != token {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

func TestUploadsWithASecretAreStreamed(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		got := make(chan struct{})
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			first := make([]byte, len(realKey))
			if _, err := io.ReadFull(r.Body, first); err != nil || string(first) != realKey {
				t.Errorf("%q, %v", first, err)
			}
			close(got)
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprint(w, n, r.ContentLength)
		}), everything, withSecrets(t, host))
		const size = 8 << 20
		body, upload := io.Pipe()
		go func() {
			_, _ = io.WriteString(upload, key[:5])
			_, _ = io.WriteString(upload, key[5:])
			<-got // only now: the beginning arrived before the end was there
			_, err := io.Copy(upload, io.LimitReader(zeros{}, size))
			upload.CloseWithError(err)
		}()
		r, err := http.NewRequest("POST", "https://"+host+"/", body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = size + int64(len(key))
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Expect", "100-continue")
		response, err := l.client(h2).Do(r)
		if text := read(t, response, err); text != fmt.Sprint(size, -1) {
			t.Errorf("the host got %s", text)
		}
	})
}

// The client learns that nobody wants its body, and sends no other request where it would have been.
func TestARefusedBodyIsNotReadAsARequest(t *testing.T) {
	l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusRequestEntityTooLarge)
	}), everything, withSecrets(t, host))
	for _, header := range []string{"X-Other: " + token, "Content-Type: application/json"} {
		c := l.raw("http/1.1")
		fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: %s\r\n%s\r\nExpect: 100-continue\r\nContent-Length: 40\r\n\r\n", host, header)
		r := bufio.NewReader(c)
		response, err := http.ReadResponse(r, nil)
		if err != nil || response.StatusCode < 400 {
			t.Fatalf("%v, %v", response, err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		fmt.Fprintf(c, "GET /other HTTP/1.1\r\nHost: %s\r\n\r\n", host)
		if response, err := http.ReadResponse(r, nil); err == nil {
			t.Errorf("%s: what may be a body is answered with %s", header, response.Status)
		}
	}
}

func TestAWebSocketBeginsWithASecret(t *testing.T) {
	l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Echo: %s\r\n\r\n", r.Header.Get("Authorization"))
		line, _ := buffered.ReadString('\n')
		fmt.Fprint(c, line)
	}), everything, withSecrets(t, host))
	c := l.raw("http/1.1")
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host, token)
	r := bufio.NewReader(c)
	response, err := http.ReadResponse(r, nil)
	if err != nil || response.StatusCode != http.StatusSwitchingProtocols || response.Header.Get("X-Echo") != "Bearer "+token {
		t.Fatalf("%v, %v", response, err)
	}
	fmt.Fprint(c, token+"\n") // which is the host's to read as it is
	if rest, err := io.ReadAll(r); err != nil || string(rest) != token+"\n" {
		t.Errorf("%q, %v", rest, err)
	}
	c = l.raw("http/1.1")
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nSec-WebSocket-Protocol: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host, token)
	if response, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || response.StatusCode != http.StatusForbidden {
		t.Errorf("%v, %v", response, err)
	}
}

func TestAHostIsAskedForWholeAnswersInPlainText(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if got := r.Header["Accept-Encoding"]; len(got) != 1 || got[0] != "identity" {
				t.Errorf("Accept-Encoding is %q", got)
			}
			text := "0123456789" + r.Header.Get("Authorization")
			if r.URL.Path != "/gzip" {
				http.ServeContent(w, r, "x.txt", time.Time{}, strings.NewReader(text))
				return
			}
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			fmt.Fprint(z, text)
			z.Close()
		}), everything, withSecrets(t, host))
		client := l.client(h2)
		r, text := ask(t, client, "GET", "/", nil, "Authorization", token, "Accept-Encoding", "gzip", "Range", "bytes=0-25", "If-Range", `"x"`)
		if r.StatusCode != http.StatusOK || text != "0123456789"+token {
			t.Errorf("%s %s", r.Status, text)
		}
		r, text = ask(t, client, "GET", "/", nil, "Accept-Encoding", "br", "Range", "bytes=0-4")
		if r.StatusCode != http.StatusPartialContent || text != "01234" {
			t.Errorf("%s %s", r.Status, text)
		}
		// What a host compresses all the same, it says to the guest.
		_, text = ask(t, client, "GET", "/gzip", nil, "Authorization", "x")
		z, err := gzip.NewReader(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if plain, err := io.ReadAll(z); err != nil || string(plain) != "0123456789x" {
			t.Errorf("%s, %v", plain, err)
		}
	})
}

func TestAnswersWithoutABodyStayAsTheyAre(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Echo", r.Header.Get("X-Api-Key"))
			switch r.URL.Path {
			case "/204":
				w.WriteHeader(http.StatusNoContent)
			case "/304":
				w.WriteHeader(http.StatusNotModified)
			default:
				w.Header().Set("Content-Length", "1000")
			}
		}), everything, withSecrets(t, host))
		for _, c := range []struct {
			method, path string
			status       int
			length       string
		}{{"HEAD", "/", 200, "1000"}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}} {
			r, text := ask(t, l.client(h2), c.method, c.path, nil, "X-Api-Key", key)
			if r.StatusCode != c.status || text != "" || r.Header.Get("Content-Length") != c.length || r.Header.Get("X-Echo") != key {
				t.Errorf("%s %s: %s %v %q", c.method, c.path, r.Status, r.Header, text)
			}
		}
	})
}

// brokenHost answers a request with what a test says, in which %s is the secret.
func brokenHost(t *testing.T, answer string, changes ...change) *lab {
	l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(c, answer, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	}), everything, append(changes, withSecrets(t, host), func(l *lab, _ *Options) { l.upstream.EnableHTTP2 = false })...)
	return l
}

func TestErrorsTellNoSecret(t *testing.T) {
	for _, answer := range []string{"%s\r\n\r\n", "HTTP/1.1 %s\r\n\r\n", "HTTP/1.1 200 OK\r\n%s\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: %s\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: %s\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"} {
		var log lockedBuffer
		l := brokenHost(t, answer, func(_ *lab, o *Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		})
		r, text := ask(t, l.client(false), "GET", "/", nil, "Authorization", "Bearer "+token)
		text += fmt.Sprint(r.Header)
		if strings.Contains(text, realToken[4:]) || strings.Contains(log.String(), realToken[4:]) {
			t.Errorf("%q: %s %s\n%s", answer, r.Status, text, log.String())
		}
		if r.StatusCode != http.StatusBadGateway {
			t.Errorf("%q: %s %s", answer, r.Status, text)
		}
	}
	// Without an answer, there is nothing to hide.
	l := newLab(t, "https", http.NotFoundHandler(), everything, withSecrets(t, host))
	client := l.client(false)
	ask(t, client, "GET", "/", nil)
	l.upstream.Listener.Close()
	l.upstream.CloseClientConnections()
	if r, text := ask(t, client, "GET", "/", nil, "Authorization", token); r.StatusCode != http.StatusBadGateway || !strings.Contains(text, "connection refused") {
		t.Errorf("%s %s", r.Status, text)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// BenchmarkRequests measures requests of a connection that is there, and what the one in the middle of them took.
func BenchmarkRequests(b *testing.B) {
	for _, c := range []struct {
		name    string
		changes []change
		bearer  string
	}{
		{"none", nil, realToken},
		{"elsewhere", []change{withSecrets(b, "other.example.com")}, realToken},
		{"filled", []change{withSecrets(b, host)}, token},
	} {
		for _, h2 := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/h2=%v", c.name, h2), func(b *testing.B) {
				l := newLab(b, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.Header.Get("Authorization") != "Bearer "+realToken {
						b.Error("the host did not get the secret")
					}
					_, _ = io.WriteString(w, `{"answer":"ok"}`)
				}), everything, c.changes...)
				client := l.client(h2)
				var took []time.Duration
				for b.Loop() {
					begun := time.Now()
					ask(b, client, "GET", "/", nil, "Authorization", "Bearer "+c.bearer, "User-Agent", "benchmark", "Accept", "application/json")
					took = append(took, time.Since(begun))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "median-ns/op")
			})
		}
	}
}

// BenchmarkLarge measures answers that have nothing to be masked.
func BenchmarkLarge(b *testing.B) {
	const size = 16 << 20
	for name, changes := range map[string][]change{"none": nil, "masked": {withSecrets(b, host)}} {
		b.Run(name, func(b *testing.B) {
			text := bytes.Repeat([]byte("What is in a large answer, mostly.\n"), size/35)
			l := newLab(b, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(text) }), everything, changes...)
			client := l.client(false)
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				ask(b, client, "GET", "/", nil)
			}
		})
	}
}
