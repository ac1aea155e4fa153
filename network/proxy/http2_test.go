package proxy

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sourcery-zone/sandbox/network/refusal"
)

// Frames of HTTP/2 (RFC 9113, section 6), as no client of Go's would send them.
const (
	frameData, frameHeaders, frameReset, frameSettings, frameGoAway = 0, 1, 3, 4, 7
	flagEndStream, flagEndHeaders                                   = 1, 4
)

func frame(kind, flags byte, stream uint32, payload string) string {
	head := binary.BigEndian.AppendUint32(nil, uint32(len(payload))<<8|uint32(kind))
	head = binary.BigEndian.AppendUint32(append(head, flags), stream)
	return string(head) + payload
}

// hpack has fields as literals that nobody remembers (RFC 7541, section 6.2.2).
func hpack(fields ...string) string {
	text := func(s string) string {
		if len(s) < 127 {
			return string([]byte{byte(len(s))}) + s
		}
		return string(binary.AppendUvarint([]byte{127}, uint64(len(s)-127))) + s
	}
	var block string
	for i := 0; i < len(fields); i += 2 {
		block += "\x00" + text(fields[i]) + text(fields[i+1])
	}
	return block
}

// answered reads what comes on a stream: what the answer has to say, and whether its status is 200.
func answered(t *testing.T, c net.Conn) (body string, ok bool) {
	t.Helper()
	const status200 = 0x80 | 8 // RFC 7541, appendix A
	for {
		head := make([]byte, 9)
		if _, err := io.ReadFull(c, head); err != nil {
			return err.Error(), false
		}
		payload := make([]byte, binary.BigEndian.Uint32(head)>>8)
		if _, err := io.ReadFull(c, payload); err != nil {
			t.Fatal(err)
		}
		switch head[3] {
		case frameData:
			body += string(payload)
		case frameHeaders:
			ok = payload[0] == status200
		case frameReset, frameGoAway:
			return "", false
		}
		if (head[3] == frameData || head[3] == frameHeaders) && head[4]&flagEndStream != 0 {
			return body, ok
		}
	}
}

// TestWhatIsSaidInFrames has a host that speaks HTTP/2, and one that speaks it until the guest has chosen it, so that what
// comes in frames goes out as text.
func TestWhatIsSaidInFrames(t *testing.T) {
	const smuggled = "\r\n\r\nGET /admin HTTP/1.1\r\nHost: " + host + "\r\n\r\n"
	bearer := "Bearer " + token
	pseudo := func(method, path string, more ...string) []string {
		return append([]string{":method", method, ":scheme", "https", ":authority", host, ":path", path}, more...)
	}
	for _, c := range []struct {
		name   string
		fields []string
		body   string
		rule   string // of a refusal; "broken": it is no request, of which the client is told so or nothing
		seen   []string
	}{
		{"a request", pseudo("POST", "/ok", "authorization", bearer), "a", "", []string{"POST /ok", "Authorization:[Bearer " + realToken + "]", `"a"`}},
		{"a request in a body", pseudo("POST", "/ok", "authorization", bearer), "0" + smuggled, "", []string{"POST /ok", realToken, "/admin"}},
		{"a length that is too short", pseudo("POST", "/ok", "content-length", "1"), "a" + smuggled, "broken", nil},
		{"a length that is too long", pseudo("POST", "/ok", "content-length", "100"), "a", "broken", nil},
		{"two lengths", pseudo("POST", "/ok", "content-length", "1", "content-length", "9"), "a", "", []string{"POST /ok", "Content-Length:[1]", `"a"`}},
		{"chunks", pseudo("POST", "/ok", "transfer-encoding", "chunked"), "0" + smuggled, "broken", nil},
		{"chunks in another spelling", pseudo("POST", "/ok", "transfer_encoding", "chunked"), "0" + smuggled, "ambiguous-request", nil},
		{"a line's end in a value", pseudo("POST", "/ok", "x-other", "a"+smuggled), "a", "broken", nil},
		{"a line's end in a value with a secret", pseudo("POST", "/ok", "authorization", bearer+"\r\nx-other: a"), "a", "broken", nil},
		{"a line's end in a name", pseudo("POST", "/ok", "x-other: a\r\nauthorization", bearer), "a", "broken", nil},
		{"a colon in a name", pseudo("POST", "/ok", "authorization: x", bearer), "a", "broken", nil},
		{"capitals in a name", pseudo("POST", "/ok", "Authorization", bearer), "a", "broken", nil},
		{"a line's end in the path", pseudo("POST", "/ok HTTP/1.1"+smuggled), "a", "broken", nil},
		{"a space in the path", pseudo("POST", "/ok HTTP/1.1 /admin"), "a", "not-allowed", nil},
		{"a space in the method", pseudo("POST /admin HTTP/1.1", "/ok"), "a", "broken", nil},
		{"no path", pseudo("POST", ""), "a", "broken", nil},
		{"an absolute path", pseudo("POST", "https://"+host+"/ok"), "a", "ambiguous-request", nil},
		{"a path twice", pseudo("POST", "/ok", ":path", "/admin"), "a", "broken", nil},
		{"CONNECT", []string{":method", "CONNECT", ":authority", host + ":443"}, "", "ambiguous-request", nil},
		{"CONNECT to a WebSocket", pseudo("CONNECT", "/ok", ":protocol", "websocket"), "", "broken", nil},
		{"another host", []string{":method", "POST", ":scheme", "https", ":authority", "other.example", ":path", "/ok", "authorization", bearer}, "a", "host-mismatch", nil},
		{"another host beside this one", pseudo("POST", "/ok", "host", "other.example", "authorization", bearer), "a", "host-mismatch", nil},
		{"a connection's own field", pseudo("POST", "/ok", "connection", "authorization", "authorization", bearer), "a", "broken", nil},
		{"a cookie", pseudo("POST", "/ok", "cookie", "a="+token), "a", "secret-misplaced", nil},
		{"a cookie in crumbs", pseudo("POST", "/ok", "cookie", "a="+token[:9], "cookie", token[9:]), "a", "", []string{token[:9] + "; " + token[9:]}},
		{"another path", pseudo("POST", "/admin", "authorization", bearer), "a", "not-allowed", nil},
	} {
		for _, later := range []string{"HTTP/2.0", "HTTP/1.1"} {
			t.Run(c.name+", "+later, func(t *testing.T) {
				seen := make(chan string, 10)
				l := newLab(t, "https", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					text := fmt.Sprintf("%s %s %s %v", r.Proto, r.Method, r.RequestURI, r.Header)
					if b, err := io.ReadAll(r.Body); err == nil { // otherwise the host knows that it is not all
						seen <- fmt.Sprintf("%s %q", text, b)
					}
				}), []string{"https://" + host + "/ok"}, withSecrets(t, host), func(l *lab, _ *Options) {
					var connections atomic.Int32
					l.upstream.TLS.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
						if connections.Add(1) == 1 || later == "HTTP/2.0" {
							return nil, nil // what it is configured to speak
						}
						return &tls.Config{Certificates: l.upstream.TLS.Certificates, NextProtos: []string{"http/1.1"}}, nil
					}
				})
				l.proxy.fresh = 0 // a connection for each request, and not that of the handshake
				conn := l.raw("h2", "http/1.1")
				text := "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(frameSettings, 0, 0, "")
				if c.body == "" {
					text += frame(frameHeaders, flagEndHeaders|flagEndStream, 1, hpack(append(c.fields, "accept", "application/json")...))
				} else {
					text += frame(frameHeaders, flagEndHeaders, 1, hpack(append(c.fields, "accept", "application/json")...)) + frame(frameData, flagEndStream, 1, c.body)
				}
				if _, err := io.WriteString(conn, text); err != nil {
					t.Fatal(err)
				}
				body, ok := answered(t, conn)
				var got refusal.Refusal
				if _ = json.Unmarshal([]byte(body), &got); !ok && got.Rule == "" {
					got.Rule = "broken"
				}
				if got.Rule != c.rule {
					t.Errorf("the answer is %q, %v, want %q", body, ok, c.rule)
				}
				l.upstream.Close() // which waits for what it was asked
				close(seen)
				var requests []string
				for text := range seen {
					requests = append(requests, text)
				}
				if len(requests) != min(1, len(c.seen)) {
					t.Fatalf("the host got %q", requests)
				}
				for _, part := range append(c.seen, later)[:len(c.seen)+min(1, len(c.seen))] {
					if !strings.Contains(requests[0], part) {
						t.Errorf("%q is not in what the host got: %s", part, requests[0])
					}
				}
			})
		}
	}
}
