package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/textproto"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/refusal"
)

var everything = []string{"https://" + host + "/**", "http://" + host + "/**"}

// both runs a test with HTTP/1.1 and with HTTP/2.
func both(t *testing.T, test func(t *testing.T, h2 bool)) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) { test(t, h2) })
	}
}

func TestAnOpenRequestReachesTheHostAsItIs(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			dump, err := httputil.DumpRequest(r, true)
			if err != nil {
				t.Error(err)
			}
			w.Header()["Content-Type"] = nil
			w.Header().Set("Set-Cookie", "a=b")
			w.WriteHeader(http.StatusTeapot)
			fmt.Fprintf(w, "%s %s", r.Proto, dump)
		}), everything)
		r, err := http.NewRequest("PUT", "https://"+host+"/a%20b/%c3%a9?q=%zz;&b", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"X-Forwarded-For": "1.2.3.4", "Forwarded": "for=1.2.3.4", "Authorization": "Bearer x", "Accept-Encoding": "br", "User-Agent": ""} {
			r.Header.Set(name, value)
		}
		response, err := l.client(h2).Do(r)
		body := read(t, response, err)
		if response.StatusCode != http.StatusTeapot || response.Header.Get("Set-Cookie") != "a=b" || response.Header["Content-Type"] != nil {
			t.Errorf("the answer is %d %v", response.StatusCode, response.Header)
		}
		proto := "HTTP/1.1"
		if h2 {
			proto = "HTTP/2.0"
		}
		if response.Proto != proto {
			t.Errorf("the guest speaks %s", response.Proto)
		}
		want := []string{proto, "PUT /a%20b/%c3%a9?q=%zz;&b", "Host: " + host + "\r\n", "X-Forwarded-For: 1.2.3.4\r\n", "Forwarded: for=1.2.3.4\r\n", "Authorization: Bearer x\r\n", "Accept-Encoding: br\r\n", "Content-Length: 4", "\r\n\r\nbody"}
		for _, part := range want {
			if !strings.Contains(body, part) {
				t.Errorf("the host did not get %q, but\n%s", part, body)
			}
		}
		for _, part := range []string{"User-Agent", "Via", "X-Forwarded-Host"} {
			if strings.Contains(body, part) {
				t.Errorf("the host got %q\n%s", part, body)
			}
		}
	})
}

func TestAClosedRequestIsRefusedAndTheConnectionLivesOn(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		var seen atomic.Int32
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { seen.Add(1) }), []string{"GET https://" + host + "/v1/**"})
		client := l.client(h2)
		r, err := client.Get("https://" + host + "/v1/a")
		read(t, r, err)
		before := seen.Load()
		for _, c := range []struct{ method, path, rule, allow string }{
			{"GET", "/v2?secret", "not-allowed", "GET https://" + host + "/v2"},
			{"POST", "/v1/a", "not-allowed", "POST https://" + host + "/v1/a"},
			{"GET", "/o/r/info/refs?service=git-upload-pack", "not-allowed", "git:https://" + host + "/o/r"},
			{"GET", "/info/refs", "not-allowed", "GET https://" + host + "/info/refs"},
			{"GET", "/**", "not-allowed", ""}, // what the guest chooses is no pattern
			{"GET", "/%2A%2a/info/refs", "not-allowed", ""},
			{"GET", "/v1/..%2fadmin", "ambiguous-path", ""},
			{"GET", "/v1//admin", "ambiguous-path", ""},
		} {
			q, err := http.NewRequest(c.method, "https://"+host+c.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			q.Header.Set("Accept", "application/json")
			r, err := client.Do(q)
			body := read(t, r, err)
			if r.StatusCode != http.StatusForbidden || r.Header.Get(refusal.Header) != c.rule || r.Close || strings.Contains(body, `"allow"`) != (c.allow != "") || c.allow != "" && !strings.Contains(body, `"allow":"`+c.allow+`","remedy":"open `+c.allow+`"`) {
				t.Errorf("%s %s: %d %v\n%s", c.method, c.path, r.StatusCode, r.Header, body)
			}
			path, _, _ := strings.Cut(c.path, "?")
			l.refusal(c.rule + " " + c.method + " " + path)
		}
		if seen.Load() != before {
			t.Error("the host was asked what is closed")
		}
		r, err = client.Get("https://" + host + "/v1/b")
		if read(t, r, err); r.StatusCode != http.StatusOK {
			t.Errorf("after that: %s", r.Status)
		}
	})
}

func TestMethodsAndPathsInHeadersAreJudgedToo(t *testing.T) {
	l := newLab(t, "https", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), []string{"GET,POST https://" + host + "/v1/**"})
	for header, status := range map[string]int{
		"X-HTTP-Method-Override: DELETE": http.StatusForbidden, "X_HTTP_METHOD_OVERRIDE: delete": http.StatusForbidden, "X-HTTP-Method: PUT": http.StatusForbidden,
		"X-Method-Override: get": http.StatusOK, "X-Original-URL: /admin": http.StatusForbidden, "X-Rewrite-URL: /v1/../a": http.StatusForbidden, "X-Rewrite-URL: /v1/a?b": http.StatusOK,
		"Content_Length: 5": http.StatusForbidden, "Transfer_Encoding: chunked": http.StatusForbidden,
	} {
		r, err := http.NewRequest("POST", "https://"+host+"/v1/a", nil)
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(header, ": ")
		r.Header[name] = []string{value}
		response, err := l.client(false).Do(r)
		if read(t, response, err); response.StatusCode != status {
			t.Errorf("%s: %s", header, response.Status)
		}
	}
}

// Some servers take what follows a body for headers (CVE-2013-5704).
func TestWhatIsJudgedIsInNoTrailer(t *testing.T) {
	seen := make(chan http.Header, 10)
	l := newLab(t, "https", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Trailer
	}), []string{"POST https://" + host + "/v1/**"})
	for _, c := range []struct {
		announced, trailer string
		status             int
	}{
		{"X-Sum", "X-Sum: 1", http.StatusOK},
		{"X-Sum", "X-Sum: 1\r\nX-HTTP-Method-Override: DELETE\r\nX_Original_URL: /admin", http.StatusOK},
		{"X-Sum, X-HTTP-Method-Override", "X-Sum: 1\r\nX-HTTP-Method-Override: DELETE", http.StatusForbidden},
		{"X_Rewrite_URL", "X_Rewrite_URL: /admin", http.StatusForbidden},
	} {
		conn := l.raw("http/1.1")
		go func() {
			fmt.Fprintf(conn, "POST /v1/a HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\nTrailer: %s\r\n\r\n1\r\nx\r\n0\r\n%s\r\n\r\n", host, c.announced, c.trailer)
		}()
		r, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || r.StatusCode != c.status {
			t.Errorf("%s: %v, %v", c.announced, r, err)
			continue
		}
		if c.status != http.StatusOK {
			continue
		}
		if got := <-seen; len(got) != 1 || got.Get("X-Sum") != "1" {
			t.Errorf("%s: the host gets %v", c.trailer, got)
		}
	}
}

func TestAnswersAreStreamed(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		more := make(chan struct{})
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			for range 3 {
				fmt.Fprint(w, "data: x\n\n")
				_ = http.NewResponseController(w).Flush()
				<-more
			}
		}), everything)
		r, err := l.client(h2).Get("https://" + host + "/events")
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		for range 3 {
			b := make([]byte, len("data: x\n\n"))
			if _, err := io.ReadFull(r.Body, b); err != nil {
				t.Fatal(err)
			}
			more <- struct{}{} // only now: each event came before the next one was there
		}
	})
}

func TestUploadsAreStreamed(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		got := make(chan int64)
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			first := make([]byte, 5)
			if _, err := io.ReadFull(r.Body, first); err != nil {
				t.Error(err)
			}
			got <- 5
			n, err := io.Copy(io.Discard, r.Body)
			if err != nil {
				t.Error(err)
			}
			fmt.Fprint(w, n+5)
		}), everything)
		const size = 8 << 20
		body, upload := io.Pipe()
		go func() {
			_, _ = upload.Write([]byte("first"))
			<-got // only now: the beginning arrived before the end was there
			_, err := io.Copy(upload, io.LimitReader(zeros{}, size-5))
			upload.CloseWithError(err)
		}()
		r, err := l.client(h2).Post("https://"+host+"/upload", "application/octet-stream", body)
		if text := read(t, r, err); text != fmt.Sprint(size) {
			t.Errorf("the host got %s bytes", text)
		}
	})
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestTheHostDecidesWhetherToGoOn(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				w.WriteHeader(http.StatusRequestEntityTooLarge)
				return
			}
			b, _ := io.ReadAll(r.Body)
			_, _ = w.Write(b)
		}), everything)
		for path, want := range map[string]string{"/yes": "200 OK body", "/no": "413 Request Entity Too Large "} {
			r, err := http.NewRequest("POST", "https://"+host+path, strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Expect", "100-continue")
			response, err := l.client(h2).Do(r)
			if text := read(t, response, err); response.Status+" "+text != want {
				t.Errorf("%s: %s %s", path, response.Status, text)
			}
		}
	})
}

// TestTrailers is what gRPC is made of, with the field TE and streams in both directions.
func TestTrailers(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Te") != "trailers" {
				t.Errorf("TE is %q", r.Header.Get("Te"))
			}
			_ = http.NewResponseController(w).EnableFullDuplex()
			w.Header().Set("Trailer", "Grpc-Status")
			w.Header().Set("Content-Type", "application/grpc")
			for b := bufio.NewReader(r.Body); ; {
				line, err := b.ReadString('\n')
				if err != nil {
					break
				}
				fmt.Fprint(w, "echo "+line)
				_ = http.NewResponseController(w).Flush()
			}
			w.Header().Set("Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", "told "+r.Trailer.Get("X-Sum"))
		}), everything)
		body, send := io.Pipe()
		r, err := http.NewRequest("POST", "https://"+host+"/pkg.Service/Method", body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Te", "trailers")
		r.Trailer = http.Header{"X-Sum": nil}
		answered := make(chan struct{})
		go func() {
			_, _ = send.Write([]byte("a\n"))
			<-answered // only then, more
			_, _ = send.Write([]byte("b\n"))
			r.Trailer.Set("X-Sum", "2")
			send.Close()
		}()
		response, err := l.client(h2).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		lines := bufio.NewReader(response.Body)
		if line, err := lines.ReadString('\n'); err != nil || line != "echo a\n" {
			t.Fatalf("%q: %v", line, err)
		}
		close(answered)
		if rest, err := io.ReadAll(lines); err != nil || string(rest) != "echo b\n" {
			t.Fatalf("%q: %v", rest, err)
		}
		if response.Trailer.Get("Grpc-Status") != "0" || response.Trailer.Get("Grpc-Message") != "told 2" {
			t.Errorf("the trailers are %v", response.Trailer)
		}
	})
}

func TestWebSocketsPass(t *testing.T) {
	for _, scheme := range []string{"https", "http"} {
		l := newLab(t, scheme, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, buffered, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nhello\n", r.Header.Get("Upgrade"))
			line, _ := buffered.ReadString('\n')
			fmt.Fprint(c, "echo "+line)
		}), []string{scheme + "://" + host + "/ws"})
		c := l.raw("http/1.1")
		fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host)
		r := bufio.NewReader(c)
		response, err := http.ReadResponse(r, nil)
		if err != nil || response.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%v, %v", response, err)
		}
		if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
			t.Errorf("%q, %v", line, err)
		}
		fmt.Fprint(c, "x\n")
		if rest, err := io.ReadAll(r); err != nil || string(rest) != "echo x\n" {
			t.Errorf("%q, %v", rest, err)
		}
		c = l.raw("http/1.1")
		fmt.Fprintf(c, "GET /other HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", host)
		if response, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || response.StatusCode != http.StatusForbidden {
			t.Errorf("a WebSocket to a closed path: %v, %v", response, err)
		}
	}
}

// TestWhatIsSaidBetweenTheLines has requests that one server reads differently from another one.
func TestWhatIsSaidBetweenTheLines(t *testing.T) {
	var seen atomic.Pointer[[]string]
	seen.Store(&[]string{})
	l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		all := append(slices.Clone(*seen.Load()), fmt.Sprintf("%s %s %q %v %s", r.Method, r.RequestURI, b, r.TransferEncoding, r.Header.Get("Upgrade")))
		seen.Store(&all)
	}), []string{"https://" + host + "/ok"})
	head := "HTTP/1.1\r\nHost: " + host + "\r\n"
	smuggled := "GET /admin " + head + "\r\n"
	for _, c := range []struct {
		name, text string
		status     []int // of the answers; 0: the connection's end
		seen       []string
	}{
		{"an absolute target", "GET https://" + host + "/ok " + head + "\r\n", []int{403}, nil},
		{"another absolute target", "GET http://other.example/ok " + head + "\r\n", []int{403}, nil},
		{"CONNECT", "CONNECT " + host + ":443 " + head + "\r\n", []int{403}, nil},
		{"two hosts", "GET /ok " + head + "Host: other.example\r\n\r\n", []int{400, 0}, nil},
		{"the same host twice", "GET /ok " + head + "Host: " + host + "\r\n\r\n", []int{400, 0}, nil},
		{"no host", "GET /ok HTTP/1.1\r\n\r\n", []int{400, 0}, nil},
		{"another host", "GET /ok HTTP/1.1\r\nHost: other.example\r\n\r\n", []int{403}, nil},
		{"another port", "GET /ok HTTP/1.1\r\nHost: " + host + ":8443\r\n\r\n", []int{403}, nil},
		{"a user", "GET /ok HTTP/1.1\r\nHost: u@" + host + "\r\n\r\n", []int{400, 0}, nil},
		{"its port, a dot and capitals", "GET /ok HTTP/1.1\r\nHost: API.example.com.:443\r\n\r\n", []int{200}, []string{`GET /ok "" [] `}},
		{"no host, of HTTP/1.0", "GET /ok HTTP/1.0\r\n\r\n", []int{403, 0}, nil},
		{"length and chunks", "POST /ok " + head + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, []int{200, 403}, []string{`POST /ok "" [chunked] `}},
		{"two lengths", "POST /ok " + head + "Content-Length: 4\r\nContent-Length: 50\r\n\r\nabcd" + smuggled, []int{400, 0}, nil},
		{"chunks and others", "POST /ok " + head + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + smuggled, []int{501, 0}, nil},
		{"chunks with a tab", "POST /ok " + head + "Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled, []int{400, 0}, nil},
		{"chunks with a space before the colon", "POST /ok " + head + "Transfer-Encoding : chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled, []int{400, 0}, nil},
		{"a folded line", "POST /ok " + head + "X: a\r\n Content-Length: 100\r\n\r\n" + smuggled, []int{200, 403}, []string{`POST /ok "" [] `}},
		{"a body that nobody expects", "GET /ok " + head + "Content-Length: " + fmt.Sprint(len(smuggled)) + "\r\n\r\n" + smuggled, []int{200}, []string{fmt.Sprintf("GET /ok %q [] ", smuggled)}},
		{"another protocol", "GET /ok " + head + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n" + smuggled, []int{200, 403}, []string{`GET /ok "" [] `}},
		{"another protocol before WebSockets", "GET /ok " + head + "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n\r\n" + smuggled, []int{200, 403}, []string{`GET /ok "" [] `}},
		{"another protocol beside WebSockets", "GET /ok " + head + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n" + smuggled, []int{200, 403}, []string{`GET /ok "" [] `}},
		{"HTTP/2 without ALPN", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{403, 0}, nil},
		{"a line feed in the target", "GET /ok\n/admin " + head + "\r\n", []int{400, 0}, nil},
		{"all of it", "OPTIONS * " + head + "\r\n", []int{403}, nil},
		{"a head without an end", "GET /ok " + head + "X: " + strings.Repeat("a", 80<<10) + "\r\n\r\n", []int{431, 0}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			seen.Store(&[]string{})
			conn := l.raw("http/1.1")
			go func() { _, _ = conn.Write([]byte(c.text)) }()
			r := bufio.NewReader(conn)
			var got []int
			for range c.status {
				method := &http.Request{Method: "POST"}
				response, err := http.ReadResponse(r, method)
				if err != nil {
					got = append(got, 0)
					break
				}
				_, _ = io.Copy(io.Discard, response.Body)
				got = append(got, response.StatusCode)
			}
			if !slices.Equal(got, c.status) {
				t.Errorf("the answers are %v, want %v", got, c.status)
			}
			if !slices.Equal(*seen.Load(), c.seen) {
				t.Errorf("the host got %q, want %q", *seen.Load(), c.seen)
			}
		})
	}
}

func TestAClientThatMeansAnotherHostIsRefused(t *testing.T) {
	l := newLab(t, "https", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the host was asked") }), everything)
	for _, name := range []string{"other.example", ""} {
		c, err := l.dialContext(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if err := tls.Client(c, &tls.Config{ServerName: name, InsecureSkipVerify: true}).Handshake(); err == nil {
			t.Errorf("a client that asks for %q is served", name)
		}
		c.Close()
		l.refusal(RuleServerName)
	}
}

func TestAClientThatDoesNotTrustTheAuthorityIsTold(t *testing.T) {
	l := newLab(t, "https", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the host was asked") }), everything)
	client := l.client(false)
	client.Transport.(*http.Transport).TLSClientConfig.RootCAs = nil
	_, err := client.Get("https://" + host + "/")
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
		t.Errorf("%v", err)
	}
	l.refusal(RuleNotTrusted)

	l.mu.Lock()
	l.refused = nil
	l.mu.Unlock()
	l.raw().Close() // as one that looks at the certificate later
	l.refusal(RuleNotTrusted)
}

func TestAHostThatIsNotBelievedIsNotAsked(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the host was asked") }), everything, func(_ *lab, o *Options) {
			other, err := authority.New()
			if err != nil {
				t.Fatal(err)
			}
			o.Roots = x509.NewCertPool()
			o.Roots.AppendCertsFromPEM(other.Certificate())
		})
		r, err := l.client(h2).Get("https://" + host + "/")
		if text := read(t, r, err); r.StatusCode != http.StatusBadGateway || !strings.Contains(text, "unknown authority") {
			t.Errorf("%s %s", r.Status, text)
		}
		l.refusal(RuleCertificate)
	})
}

func TestTheGuestIsOfferedWhatTheHostSpeaks(t *testing.T) {
	for _, speaks := range []bool{false, true} {
		l := newLab(t, "https", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), everything, func(l *lab, _ *Options) { l.upstream.EnableHTTP2 = speaks })
		for _, c := range []struct {
			offers []string
			want   string
		}{
			{[]string{"h2", "http/1.1"}, map[bool]string{false: "http/1.1", true: "h2"}[speaks]},
			{[]string{"http/1.1"}, "http/1.1"},
			{nil, ""},
		} {
			if got := l.raw(c.offers...).(*tls.Conn).ConnectionState().NegotiatedProtocol; got != c.want {
				t.Errorf("the host speaks h2: %v; of %q, the guest is offered %q", speaks, c.offers, got)
			}
		}
	}
}

func TestAConnectionOfTheHostsThatEndedIsMadeAnew(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) }), everything)
		client := l.client(h2)
		r, err := client.Get("https://" + host + "/")
		first := read(t, r, err)
		l.upstream.CloseClientConnections()
		for r.StatusCode = 0; r.StatusCode != http.StatusOK; { // once the end was noticed
			r, err = client.Get("https://" + host + "/")
			if second := read(t, r, err); second == first {
				t.Fatalf("%s %s, after %s", r.Status, second, first)
			}
		}
	})
}

func TestPlainHTTP(t *testing.T) {
	l := newLab(t, "http", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host, r.URL) }), []string{"http://" + host + "/a/**"})
	r, err := l.client(false).Get("http://" + host + "/a/b")
	if text := read(t, r, err); text != host+"/a/b" {
		t.Errorf("%s %s", r.Status, text)
	}
	r, err = l.client(false).Get("http://" + host + "/b")
	if text := read(t, r, err); r.StatusCode != http.StatusForbidden || !strings.Contains(text, "not-allowed") {
		t.Errorf("%s %s", r.Status, text)
	}
	// TLS at this port is another scheme, whatever the host speaks.
	c := l.raw()
	_, _ = c.Write(bytes.Repeat([]byte{0x16}, 5))
	if _, err := textproto.NewReader(bufio.NewReader(c)).ReadLine(); err == nil {
		t.Error("what is no TLS is answered")
	}
}

func TestTheHostLearnsThatTheGuestIsGone(t *testing.T) {
	begun := make(chan struct{})
	gone := make(chan struct{})
	l := newLab(t, "https", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(gone)
	}), everything)
	c := l.raw("http/1.1")
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", host)
	<-begun
	c.Close()
	<-gone // the host learns that nobody waits any more
}

// TestRequestsAreBounded has a guest that takes no answers.
func TestRequestsAreBounded(t *testing.T) {
	release := make(chan struct{})
	l := newLab(t, "https", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/" {
			return
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}), everything)
	answers := make(chan error, maxRequests+1)
	var clients []*http.Client
	for i := range maxRequests + 1 {
		if i%100 == 0 { // as many as one connection may have
			clients = append(clients, l.client(true))
			r, err := clients[len(clients)-1].Get("https://" + host + "/quick")
			read(t, r, err)
		}
		client := clients[len(clients)-1]
		go func() {
			r, err := client.Get("https://" + host + "/")
			if err == nil {
				r.Body.Close()
			}
			answers <- err
		}()
	}
	if err := <-answers; err == nil {
		t.Error("there is one more than there may be")
	}
	l.refusal(RuleTooMany + " GET /")
	close(release)
	for range maxRequests {
		if err := <-answers; err != nil {
			t.Errorf("one of those that there may be: %v", err)
		}
	}
	r, err := clients[0].Get("https://" + host + "/quick")
	read(t, r, err)
}

// A host that is far away would otherwise stand still until it hears that the guest took what it has sent.
func TestAHostSendsMuchAtOnce(t *testing.T) {
	const much = 1 << 20
	reached := make(chan struct{})
	l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for sent := 0; r.URL.Path == "/much" && sent < much; sent += copyBuffer {
			if _, err := w.Write(make([]byte, copyBuffer)); err != nil {
				t.Error(err)
				return
			}
			if sent+copyBuffer >= much {
				close(reached)
			}
		}
	}), everything)
	client := l.client(true)
	client.Transport.(*http.Transport).HTTP2 = &http.HTTP2Config{MaxReceiveBufferPerConnection: 64 << 10, MaxReceiveBufferPerStream: 64 << 10}
	r, err := client.Get("https://" + host + "/much")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close() // of which nothing was read
	select {
	case <-reached:
	case <-time.After(patience):
		t.Fatal("the host waits for the guest")
	}
	for range wideSessions {
		r, err := l.client(true).Get("https://" + host + "/")
		read(t, r, err)
	}
	if n := len(l.proxy.wide); n != wideSessions {
		t.Errorf("%d sessions may have so much", n)
	}
}

func TestAConnectionThatWaitedForItsRequestIsMadeAnew(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }), everything)
		l.proxy.fresh = 0
		r, err := l.client(h2).Get("https://" + host + "/")
		if text := read(t, r, err); text != r.Proto {
			t.Errorf("the guest speaks %s, and the host %s", r.Proto, text)
		}
	})
}
