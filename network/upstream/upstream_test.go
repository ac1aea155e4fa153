package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSettingsOfTheEnvironment(t *testing.T) {
	for _, tt := range []struct {
		env  map[string]string
		want Settings
	}{
		{nil, Settings{}},
		{map[string]string{"HTTPS_PROXY": "a", "https_proxy": "b", "no_proxy": "c"}, Settings{Other: "a", None: "c"}},
		{map[string]string{"http_proxy": "b"}, Settings{Web: "b"}},
		{map[string]string{"ALL_PROXY": "a", "http_proxy": "b"}, Settings{Web: "b", Other: "a"}},
	} {
		if got := FromEnvironment(func(name string) string { return tt.env[name] }); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.env, got, tt.want)
		}
	}
}

func TestProxiesHaveAddresses(t *testing.T) {
	p, err := New(Settings{Web: "http://192.0.2.7:3128", Other: "socks5://u:p@proxy.example.com"})
	if err != nil {
		t.Fatal(err)
	}
	literal, named := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("198.51.100.1")
	fails := false
	p.lookup = func(_ context.Context, _, host string) ([]netip.Addr, error) {
		switch {
		case host == literal.String():
			return []netip.Addr{literal}, nil
		case fails || host != "proxy.example.com":
			return nil, errors.New("there is no such name")
		}
		return []netip.Addr{netip.MustParseAddr("::ffff:198.51.100.1")}, nil
	}
	want := []netip.Addr{literal, named}
	if got := p.Addresses(); !slices.Equal(got, want) {
		t.Errorf("the proxies have %v", got)
	}
	fails, p.until = true, time.Time{}
	if got := p.Addresses(); !slices.Equal(got, want) {
		t.Errorf("while one of them is not found, the proxies have %v", got)
	}
	// Nobody waits for a server that does not answer.
	answer := make(chan struct{})
	p.lookup = func(context.Context, string, string) ([]netip.Addr, error) {
		<-answer
		return nil, nil
	}
	p.until = time.Now()
	if got := p.Addresses(); !slices.Equal(got, want) {
		t.Errorf("while they are looked up again, the proxies have %v", got)
	}
	close(answer)
}

func TestPasswordsAreNotShown(t *testing.T) {
	const secret = "s3cret"
	for text, want := range map[string]string{
		"http://u:s3cret@proxy:3128":   "http://proxy:3128",
		"u:s3cret@proxy":               "http://proxy",
		"socks5h://u:s3cret@[::1]:1":   "socks5h://[::1]:1",
		"https://u:s3cret@proxy":       "https://proxy",
		"http://u:s3cret@proxy:port":   "",
		"http://u:s3cret@proxy/s3cret": "",
		"http://s3cret%zz@proxy":       "",
		"http://s3cret:3128?x=s3cret":  "",
		"ftp://s3cret":                 "",
		"http://:s3cret@":              "",
	} {
		s := One(text)
		_, err := New(s)
		if shown := s.String(); strings.Contains(shown, secret) || want != "" && shown != want {
			t.Errorf("%s is shown as %s", text, shown)
		}
		if (err == nil) != (want != "") || err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", text, err)
		}
		if err := Check(text); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s may be written down: %v", text, err)
		}
	}
	if err := Check("socks5://proxy:1080"); err != nil {
		t.Error(err)
	}
	if _, err := New(Settings{Other: "proxy", None: strings.Repeat("x", maxSettings)}); err == nil {
		t.Error("settings of any length are taken")
	}
}

func TestWhatIsReachedByWhichProxy(t *testing.T) {
	p, err := New(Settings{Web: "web:1", Other: "other:1", None: "direct.example,.below.example,192.0.2.0/24"})
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]string{
		"a.example:80": "web:1", "a.example:443": "other:1", "a.example:22": "other:1", "198.51.100.1:443": "other:1",
		"direct.example:443": "", "x.below.example:80": "", "192.0.2.7:443": "", "127.0.0.1:80": "", "[::1]:443": "",
	} {
		host, port, _ := net.SplitHostPort(at)
		var number uint16
		fmt.Sscan(port, &number)
		got := ""
		if proxy := p.For(host, number); proxy != nil {
			got = proxy.url.Host
		}
		if got != want {
			t.Errorf("%s is reached by %q, want %q", at, got, want)
		}
	}
	if p, err = New(Settings{Web: "web:1"}); err != nil || p.For("a.example", 443) != nil {
		t.Errorf("without a proxy for it: %v", err)
	}
	if p, err = New(Settings{None: "x"}); err != nil || p.For("a.example", 443) != nil {
		t.Errorf("without proxies: %v", err)
	}
}

// serve answers one connection after another.
func serve(t *testing.T, answer func(*bufio.ReadWriter) error) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				rw := bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
				if err := errors.Join(answer(rw), rw.Flush()); err != nil {
					t.Error(err)
				}
				_, _ = io.Copy(io.Discard, rw)
			}()
		}
	}()
	return l.Addr().String()
}

// dial connects by way of one proxy to a host, and returns all that comes.
func dial(t *testing.T, text, host string) (string, error) {
	t.Helper()
	p, err := New(One(text))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := p.For(host, 443).Dial(ctx, host, 443)
	if err != nil {
		if strings.Contains(err.Error(), "s3cret") || !errors.Is(err, syscall.EHOSTUNREACH) {
			t.Errorf("%s: the error is %v", text, err)
		}
		return "", err
	}
	defer c.Close()
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("the connection is a %T", c)
	}
	_ = tcp.CloseWrite()
	got, err := io.ReadAll(tcp)
	return string(got), err
}

func TestProxyOfHTTP(t *testing.T) {
	at := serve(t, func(c *bufio.ReadWriter) error {
		r, err := http.ReadRequest(c.Reader)
		if err != nil {
			return err
		}
		// What the host says first comes with the answer.
		_, err = fmt.Fprintf(c, "HTTP/1.1 200 fine\r\nX: y\r\n\r\n%s %s %s", r.Method, r.RequestURI, r.Header.Get("Proxy-Authorization"))
		return err
	})
	for text, want := range map[string]string{
		at:                      "CONNECT a.example:443 ",
		"http://u:s3cret@" + at: "CONNECT a.example:443 Basic dTpzM2NyZXQ=",
	} {
		if got, err := dial(t, text, "a.example"); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	if got, err := dial(t, at, "2001:db8::1"); err != nil || got != "CONNECT [2001:db8::1]:443 " {
		t.Errorf("an address of IPv6: %q, %v", got, err)
	}
}

func TestProxyOfHTTPOverTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		fmt.Fprintf(rw, "HTTP/1.1 200 fine\r\n\r\n%s %s %s %s,", r.Method, r.RequestURI, r.Proto, r.Header.Get("Proxy-Authorization"))
		_ = rw.Flush()
		_, _ = io.Copy(c, rw) // until the end of one direction
	}))
	t.Cleanup(s.Close)
	address := s.Listener.Addr().String()
	if _, err := dial(t, "https://u:s3cret@"+address, "a.example"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a proxy for which nobody vouches: %v", err)
	}
	p, err := New(One("https://u:s3cret@" + address))
	if err != nil {
		t.Fatal(err)
	}
	at := p.For("a.example", 443)
	at.tls.RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	c, err := at.Dial(t.Context(), "a.example", 443)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "and back"); err != nil {
		t.Fatal(err)
	}
	if err := c.(*tls.Conn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(c); err != nil || string(got) != "CONNECT a.example:443 HTTP/1.1 Basic dTpzM2NyZXQ=,and back" {
		t.Errorf("got %q, %v", got, err)
	}
	at.tls.ServerName = "other.example"
	if _, err := at.Dial(t.Context(), "a.example", 443); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("a proxy of another name: %v", err)
	}
}

func TestProxyThatRefuses(t *testing.T) {
	for answer, want := range map[string]string{
		"HTTP/1.1 403 no\r\n\r\n":                          "status 403",
		"HTTP/1.1 407 who\r\n\r\n":                         "HTTPS_PROXY has them",
		"SSH-2.0-x\r\n\r\n":                                "none of HTTP",
		"HTTP/1.1 200 " + strings.Repeat("x", 2*maxAnswer): "does not end",
	} {
		at := serve(t, func(c *bufio.ReadWriter) error {
			_, err := io.WriteString(c, answer)
			return err
		})
		if _, err := dial(t, "u:s3cret@"+at, "a.example"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v", answer, err)
		}
	}
	for _, scheme := range []string{"http", "https", "socks5"} {
		if _, err := dial(t, scheme+"://u:s3cret@127.0.0.1:1", "a.example"); err == nil {
			t.Error("a proxy is used that is not there")
		}
	}
}

func TestProxyOfSOCKS(t *testing.T) {
	at := serve(t, func(c *bufio.ReadWriter) error {
		read := func(n int) []byte {
			b := make([]byte, n)
			_, _ = io.ReadFull(c, b)
			return b
		}
		say := func(b ...byte) {
			_, _ = c.Write(b)
			_ = c.Flush()
		}
		methods := read(int(read(2)[1]))
		user := "-"
		if len(methods) == 2 { // RFC 1929
			say(5, 2)
			user = string(read(int(read(2)[1]))) + ":" + string(read(int(read(1)[0])))
			say(1, 0)
		} else {
			say(5, 0)
		}
		kind := read(4)[3]
		host := "an address"
		if kind == 3 {
			host = string(read(int(read(1)[0])))
		} else {
			host = net.IP(read(4)).String()
		}
		port := read(2)
		if host == "refused.example" {
			say(5, 2, 0, 1, 0, 0, 0, 0, 0, 0)
			return nil
		}
		say(5, 0, 0, 1, 0, 0, 0, 0, 0, 0)
		_, err := fmt.Fprintf(c, "%s %d %s", host, int(port[0])<<8|int(port[1]), user)
		return err
	})
	for _, tt := range []struct{ text, host, want string }{
		{"socks5://" + at, "a.example", "a.example 443 -"},
		{"socks5h://u:s3cret@" + at, "198.51.100.1", "198.51.100.1 443 u:s3cret"},
	} {
		if got, err := dial(t, tt.text, tt.host); err != nil || got != tt.want {
			t.Errorf("%s: %q, %v, want %q", tt.text, got, err, tt.want)
		}
	}
	if _, err := dial(t, "socks5://u:s3cret@"+at, "refused.example"); err == nil {
		t.Error("what is refused is connected")
	}
}

func TestProxyThatSaysNothingIsGivenUp(t *testing.T) {
	for _, scheme := range []string{"http", "https", "socks5"} {
		asked := make(chan struct{})
		at := serve(t, func(c *bufio.ReadWriter) error {
			_, _ = c.ReadByte()
			close(asked)
			_, _ = io.Copy(io.Discard, c)
			return nil
		})
		p, err := New(One(scheme + "://" + at))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		if c, err := p.For("a.example", 443).Dial(ctx, "a.example", 443); err == nil {
			c.Close()
			t.Errorf("%s: a connection was made of nothing", scheme)
		}
	}
}
