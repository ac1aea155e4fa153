package gateway_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sourcery-zone/sandbox/internal/confine"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/authority"
	"github.com/sourcery-zone/sandbox/network/gateway"
	"github.com/sourcery-zone/sandbox/network/secret"
	"github.com/sourcery-zone/sandbox/network/upstream"
)

const placeholder = "sk-placeholder0123456789abcdef"

// valueFile is a file with a secret, which the caller need not close.
func valueFile(t *testing.T, text string) *os.File {
	t.Helper()
	v, err := secret.NewValue(text)
	if err != nil {
		t.Fatal(err)
	}
	f, err := v.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// provider is a host of the Internet, to which an upstream proxy leads, and tells by which key it was asked.
type provider struct {
	keys     chan string
	upstream upstream.Settings
}

func newProvider(t *testing.T, by *authority.Authority) *provider {
	t.Helper()
	keys := make(chan string, 16)
	p := newProviderOf(t, by, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { keys <- r.Header.Get("Authorization") }))
	p.keys = keys
	return p
}

// newProviderOf is one that answers in another way.
func newProviderOf(t *testing.T, by *authority.Authority, answer http.Handler) *provider {
	t.Helper()
	p := &provider{}
	s := httptest.NewUnstartedServer(answer)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) { return by.Leaf(hello.ServerName) }}
	s.StartTLS()
	t.Cleanup(s.Close)
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
			go connectTo(c, s.Listener.Addr().String())
		}
	}()
	p.upstream = upstream.One("http://" + l.Addr().String())
	return p
}

// ask has a guest that believes an authority ask the provider for a path, and returns the status.
func (p *provider) ask(t *testing.T, inside *guest, by *authority.Authority, path string) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := inside.client(by)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusOK {
		<-p.keys
	}
	return answer.StatusCode
}

// connectTo is a proxy of which all hosts are one.
func connectTo(c net.Conn, address string) {
	defer c.Close()
	in := bufio.NewReader(c)
	if r, err := http.ReadRequest(in); err != nil || r.Method != http.MethodConnect {
		return
	}
	to, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer to.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 200 yes\r\n\r\n"); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(to, in)
		to.Close()
	}()
	_, _ = io.Copy(c, to)
}

// reading are the options of a gateway that reads the requests to hosts for which internet vouches.
func reading(t *testing.T, own, internet *authority.Authority) gateway.Options {
	t.Helper()
	key, err := own.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("roots", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	roots := os.NewFile(uintptr(fd), "roots")
	t.Cleanup(func() { roots.Close() })
	if _, err := roots.Write(internet.Certificate()); err != nil {
		t.Fatal(err)
	}
	return gateway.Options{Mode: network.ModeAllowlist, HostName: "guest", Authority: key, Roots: roots}
}

func newAuthority(t *testing.T) *authority.Authority {
	t.Helper()
	a, err := authority.New()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestSecretsAreInRequestsOfEachProcess(t *testing.T) {
	own, internet := newAuthority(t), newAuthority(t)
	p := newProvider(t, internet)
	log, processes := &buffer{}, make(chan int, 16)
	values := []string{"sk-first-1c5b0a9f3e7d2468", "sk-second-8f02e6d4b19c7a35", "sk-other-77aa66bb55cc44dd"}
	first := valueFile(t, values[0])
	o := reading(t, own, internet)
	o.Allow, o.Upstream = []string{"api.example.com", "auth.example.com"}, p.upstream
	o.Answers = map[string][]byte{"https://auth.example.com/token": []byte(`{"access_token":"` + placeholder + `"}`)}
	o.Secrets = []gateway.Secret{
		{Spec: "API_KEY=command:pass show api@api.example.com", Placeholder: placeholder, Value: first},
		{Spec: "OTHER_KEY@other.example.com", Placeholder: "other-placeholder-0123456789", Value: valueFile(t, values[2])},
	}
	o.Log, o.Logger = log, slog.New(slog.NewTextHandler(log, nil))
	o.Started = func(pid int, _ confine.Report) { processes <- pid }
	g, err := gateway.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		g.Close()
		if t.Failed() {
			t.Logf("the gateway says:\n%s", log.String())
		}
	})
	inside := newGuest(t, g)
	ask := func(key string) (status int, text string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		client := inside.client(own)
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://api.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+key)
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		b, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		return answer.StatusCode, string(b)
	}
	// What is answered here, no host is asked for.
	answered := func() {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		client := inside.client(own)
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://auth.example.com/token", strings.NewReader("grant_type=refresh_token"))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if text, err := io.ReadAll(answer.Body); err != nil || !strings.Contains(string(text), placeholder) || len(p.keys) != 0 {
			t.Errorf("a request for tokens is answered %s, %v; %d arrived", text, err, len(p.keys))
		}
	}
	arrives := func(want string) {
		t.Helper()
		if status, text := ask(placeholder); status != http.StatusOK {
			t.Fatalf("the request is answered %d: %s", status, text)
		}
		if got := <-p.keys; got != "Bearer "+want {
			t.Errorf("the host is asked by another key than the one ending in %q", want[len(want)-4:])
		}
	}
	refused := func(rule string) {
		t.Helper()
		if status, text := ask(placeholder); status != http.StatusForbidden || !strings.Contains(text, rule) {
			t.Errorf("a request is answered %d: %s; want the rule %s", status, text, rule)
		}
	}
	next := func(signal unix.Signal) {
		t.Helper()
		if err := unix.Kill(<-processes, signal); err != nil {
			t.Fatal(err)
		}
		pid := <-processes
		processes <- pid
	}

	arrives(values[0])
	answered()
	next(unix.SIGKILL)
	arrives(values[0])
	answered()

	if err := g.SetSecret("API_KEY", valueFile(t, values[1])); err != nil {
		t.Fatal(err)
	}
	first.Close()
	arrives(values[1])
	next(unix.SIGQUIT) // of which Go dies with all that its goroutines do
	arrives(values[1])
	if text := log.String(); !strings.Contains(text, "SIGQUIT") || !strings.Contains(text, "goroutine") {
		t.Error("the log does not say how the process died")
	}

	if status, text := ask("other-placeholder-0123456789"); status != http.StatusForbidden || !strings.Contains(text, secret.RuleMisplaced) {
		t.Errorf("another host's placeholder is answered %d: %s", status, text)
	}
	if err := g.SetSecret("API_KEY", nil); err != nil {
		t.Fatal(err)
	}
	refused(secret.RuleNoValue)
	next(unix.SIGKILL)
	refused(secret.RuleNoValue)
	if err := g.SetSecret("API_KEY", valueFile(t, values[0])); err != nil {
		t.Fatal(err)
	}
	arrives(values[0])
	if err := g.SetSecret("NO_KEY", nil); err == nil || !strings.Contains(err.Error(), "no secret called NO_KEY") {
		t.Errorf("a secret that there is not is set: %v", err)
	}
	for _, value := range append(values, "pass show") {
		if strings.Contains(log.String(), value) {
			t.Errorf("the log has what ends in %q", value[len(value)-4:])
		}
	}
}

func TestRequestsAreReadFromTheFirstRuleOn(t *testing.T) {
	own, internet := newAuthority(t), newAuthority(t)
	p := newProvider(t, internet)
	o := reading(t, own, internet)
	key := o.Authority
	o.Authority, o.Allow, o.Upstream = nil, []string{"api.example.com"}, p.upstream
	g, processes := startWith(t, o)
	inside := newGuest(t, g)
	ask := func(by *authority.Authority, path string) int {
		t.Helper()
		return p.ask(t, inside, by, path)
	}
	if got := ask(internet, "/v2"); got != http.StatusOK {
		t.Errorf("a host that is open as a whole answers %d", got)
	}
	rules := []string{"https://api.example.com/v1/**"}
	if err := g.SetRules(rules, nil); err == nil || !strings.Contains(err.Error(), "needs a proxy") {
		t.Errorf("without an authority: %v", err)
	}
	if err := g.SetAuthority([]byte("x")); err == nil {
		t.Error("what is no authority is taken")
	}
	if err := errors.Join(g.SetAuthority(key), g.SetRules(rules, nil)); err != nil {
		t.Fatal(err)
	}
	reads := func() {
		t.Helper()
		if open, closed := ask(own, "/v1/x"), ask(own, "/v2"); open != http.StatusOK || closed != http.StatusForbidden {
			t.Errorf("the request that is open is answered %d, and another one %d", open, closed)
		}
	}
	reads()
	if err := unix.Kill((<-processes).pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-processes
	reads()
}

func TestAProxyIsSpokenToByTLS(t *testing.T) {
	own, internet := newAuthority(t), newAuthority(t)
	p := newProvider(t, internet)
	to := strings.TrimPrefix(p.upstream.Other, "http://")
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, in, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		out, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer out.Close()
		fmt.Fprintf(out, "CONNECT %s HTTP/1.1\r\n\r\n", r.RequestURI)
		go func() {
			_, _ = io.Copy(out, in)
			out.Close()
		}()
		_, _ = io.Copy(c, out)
	}))
	t.Cleanup(s.Close)
	o := reading(t, own, internet)
	if err := pem.Encode(o.Roots, &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}); err != nil {
		t.Fatal(err)
	}
	o.Allow, o.Upstream = []string{"api.example.com"}, upstream.One(s.URL)
	g, _ := startWith(t, o)
	inside := newGuest(t, g)
	if got := p.ask(t, inside, internet, "/"); got != http.StatusOK {
		t.Errorf("a host that is open as a whole answers %d", got)
	}
	if err := g.SetRules([]string{"https://api.example.com/v1/**"}, nil); err != nil {
		t.Fatal(err)
	}
	if open, closed := p.ask(t, inside, own, "/v1/x"), p.ask(t, inside, own, "/v2"); open != http.StatusOK || closed != http.StatusForbidden {
		t.Errorf("the request that is open is answered %d, and another one %d", open, closed)
	}
}

func TestSecretsThatCannotBeKept(t *testing.T) {
	own, internet := newAuthority(t), newAuthority(t)
	many := make([]gateway.Secret, gateway.MaxSecrets+1)
	for i := range many {
		many[i] = gateway.Secret{Spec: fmt.Sprintf("KEY_%d@api.example.com", i), Placeholder: fmt.Sprintf("%s-%03d", placeholder, i)}
	}
	empty, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer empty.Close()
	key := gateway.Secret{Spec: "API_KEY@api.example.com", Placeholder: placeholder}
	long := gateway.Secret{Spec: "API_KEY@api.example.com", Placeholder: strings.Repeat("x", 20<<10)}
	without := key
	without.Value = empty
	for want, change := range map[string]func(*gateway.Options){
		"65 secrets are too many":    func(o *gateway.Options) { o.Secrets = many },
		"no @":                       func(o *gateway.Options) { o.Secrets = []gateway.Secret{{Spec: "API_KEY"}} },
		"a longer placeholder":       func(o *gateway.Options) { o.Secrets = []gateway.Secret{long} },
		"two secrets called API_KEY": func(o *gateway.Options) { o.Secrets = []gateway.Secret{key, key} },
		"it is empty":                func(o *gateway.Options) { o.Secrets = []gateway.Secret{without} },
		"needs a proxy":              func(o *gateway.Options) { o.Secrets, o.Authority = []gateway.Secret{key}, nil },
	} {
		o := reading(t, own, internet)
		o.Log, o.Logger = io.Discard, slog.New(slog.DiscardHandler)
		change(&o)
		g, err := gateway.Start(t.Context(), o)
		if err == nil {
			g.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestAsManySecretsAsThereMayBe(t *testing.T) {
	own, internet := newAuthority(t), newAuthority(t)
	o := reading(t, own, internet)
	o.Log, o.Logger = io.Discard, slog.New(slog.DiscardHandler)
	value := valueFile(t, "sk-1c5b0a9f3e7d2468")
	for i := range gateway.MaxSecrets {
		o.Secrets = append(o.Secrets, gateway.Secret{
			Spec: fmt.Sprintf("KEY_%d=command:%s@host-%d.example.com", i, strings.Repeat("x", 100<<10), i), Placeholder: fmt.Sprintf("%s-%03d", placeholder, i), Value: value,
		})
	}
	var hosts strings.Builder
	for i := range 64 {
		fmt.Fprintf(&hosts, "%shost-%d.example.com,", strings.Repeat("below.", 36), i)
	}
	o.Secrets[0].Spec = "KEY_0@" + strings.TrimSuffix(hosts.String(), ",")
	o.Secrets[1].Placeholder = strings.Repeat("<&>", 5<<10) // in the form in which JSON is longest
	g, err := gateway.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	g.Close()
}

func TestSecretsStayInMemory(t *testing.T) {
	own, internet := newAuthority(t), newAuthority(t)
	o := reading(t, own, internet)
	o.Secrets = []gateway.Secret{{Spec: "API_KEY@api.example.com", Placeholder: placeholder, Value: valueFile(t, "sk-1c5b0a9f3e7d2468")}}
	_, processes := startWith(t, o)
	process := fmt.Sprintf("/proc/%d", (<-processes).pid)
	limits, err := os.ReadFile(process + "/limits")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +[01] +[01] `).Match(limits) {
		t.Errorf("it may leave a core dump:\n%s", limits)
	}
	if !regexp.MustCompile(`(?m)^Max locked memory +unlimited `).Match(limits) {
		t.Skipf("this user may not lock as much memory as that takes: run the test as root, or raise ulimit -l\n%s", limits)
	}
	status, err := os.ReadFile(process + "/status")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^VmLck:\s+[1-9]`).Match(status) {
		t.Errorf("its memory may get into swap space:\n%s", status)
	}
}
