package login

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/internal/remedy"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// provider is a token endpoint whose refresh tokens are good for once.
type provider struct {
	*httptest.Server

	mu      sync.Mutex
	refresh string          // that is good now
	life    int64           // of the tokens that it gives, in seconds
	asked   []*http.Request // each with its body read
	bodies  []string
	fail    http.HandlerFunc // answers in its place
	meeting chan struct{}    // nil, or closed once it is to answer
	arrived chan struct{}    // has something once it was asked
}

func newProvider(t *testing.T, refresh string) *provider {
	p := &provider{refresh: refresh, life: 8 * 3600, arrived: make(chan struct{}, 1)}
	p.Server = httptest.NewTLSServer(p)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	p.mu.Lock()
	p.asked, p.bodies = append(p.asked, r), append(p.bodies, string(body))
	fail, meeting := p.fail, p.meeting
	p.mu.Unlock()
	select {
	case p.arrived <- struct{}{}:
	default:
	}
	if meeting != nil {
		<-meeting
	}
	if fail != nil {
		fail(w, r)
		return
	}
	var sent map[string]string
	if r.Header.Get("Content-Type") == "application/json" {
		_ = json.Unmarshal(body, &sent)
	} else {
		r.Body = io.NopCloser(bytes.NewReader(body))
		_ = r.ParseForm()
		sent = map[string]string{}
		for name := range r.PostForm {
			sent[name] = r.PostForm.Get(name)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if sent["grant_type"] != "refresh_token" || sent["refresh_token"] != p.refresh || sent["client_id"] == "" {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"error":"invalid_grant","error_description":"%s is not good"}`, sent["refresh_token"])
		return
	}
	n := len(p.asked)
	p.refresh = fmt.Sprintf("refresh-%d", n)
	_, _ = fmt.Fprintf(w, `{"token_type":"Bearer","access_token":"access-%d","refresh_token":"refresh-%[1]d","expires_in":%d,"scope":"user:inference"}`, n, p.life)
}

func (p *provider) answersWith(status int, kind, text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = nil
	if status != 0 {
		p.fail = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, text)
		}
	}
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked)
}

// clientFor reaches the server at that address, whatever the name of the host.
func clientFor(address string, roots *x509.CertPool) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", address)
		},
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"},
	}}
}

func (p *provider) client() *http.Client {
	roots := x509.NewCertPool()
	roots.AddCert(p.Certificate())
	return clientFor(p.Listener.Addr().String(), roots)
}

func value(t *testing.T, text string) secret.Value {
	t.Helper()
	v, err := secret.NewValue(text)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// keeper has a login at the provider, whose access token is good for that long.
func keeper(t *testing.T, p *provider, name string, life time.Duration) Keeper {
	t.Helper()
	k := Keeper{Store: Store{filepath.Join(t.TempDir(), "logins")}, Client: p.client()}
	l := Login{Access: value(t, "access-0"), Refresh: value(t, "refresh-0"), Expires: time.Now().Add(life), Account: "account", Since: time.Now()}
	if err := k.Store.Put(t.Context(), name, l); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestATokenThatExpiresSoonIsReplacedBeforeItIsUsed(t *testing.T) {
	for _, name := range Names() {
		p := newProvider(t, "refresh-0")
		k := keeper(t, p, name, 6*time.Minute)
		if l, err := k.Login(t.Context(), name); err != nil || l.Access.Reveal() != "access-0" || p.count() != 0 {
			t.Errorf("%s: one that is good for long enough: %q, %v, asked %d times", name, l.Access.Reveal(), err, p.count())
		}
		for i := 1; i <= 3; i++ { // by the token of the time before
			k.Now = func() time.Time { return time.Now().Add(time.Duration(i) * 10 * time.Hour) }
			l, err := k.Login(t.Context(), name)
			if err != nil || l.Access.Reveal() != fmt.Sprintf("access-%d", i) {
				t.Fatalf("%s: %q, %v", name, l.Access.Reveal(), err)
			}
			stored, err := k.Store.Get(name)
			if err != nil || stored.Access != l.Access || stored.Refresh.Reveal() != fmt.Sprintf("refresh-%d", i) || stored.Account != "account" {
				t.Errorf("%s: stored is %+v, %v", name, stored, err)
			}
		}
		if r := p.asked[0]; r.Method != "POST" || !strings.HasSuffix(mustFind(t, name).Token, r.URL.Path) || r.URL.RawQuery != "" {
			t.Errorf("%s: it was asked by %s %s", name, r.Method, r.URL)
		}
	}
}

func mustFind(t *testing.T, name string) Provider {
	t.Helper()
	p, err := Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The environment of a test process that wants a token, as sandboxes do.
const childVariable = "SANDBOX_TEST_LOGIN"

type child struct{ Dir, Address, Certificate string }

func TestMain(m *testing.M) {
	if text := os.Getenv(childVariable); text != "" {
		var c child
		err := json.Unmarshal([]byte(text), &c)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM([]byte(c.Certificate))
		k := Keeper{Store: Store{c.Dir}, Client: clientFor(c.Address, roots)}
		if err == nil {
			var l Login
			l, err = k.Login(context.Background(), "codex")
			fmt.Println(l.Access.Reveal())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Of a refresh token that is used twice, providers take the login for stolen, and end it.
func TestSeveralProcessesRefreshOnce(t *testing.T) {
	p := newProvider(t, "refresh-0")
	p.meeting = make(chan struct{})
	k := keeper(t, p, "codex", time.Minute)
	pem := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Certificate().Raw})
	config, err := json.Marshal(child{k.Store.Dir, p.Listener.Addr().String(), string(pem)})
	if err != nil {
		t.Fatal(err)
	}
	const others = 3
	got := make(chan string, 2*others)
	var all sync.WaitGroup
	for range others {
		all.Go(func() {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childVariable+"="+string(config))
			out, err := cmd.CombinedOutput()
			got <- fmt.Sprintf("%s%v", out, err)
		})
		all.Go(func() {
			l, err := k.Login(t.Context(), "codex")
			got <- fmt.Sprintf("%s\n%v", l.Access.Reveal(), err)
		})
	}
	<-p.arrived
	close(p.meeting)
	all.Wait()
	close(got)
	for text := range got {
		if text != "access-1\n<nil>" {
			t.Errorf("somebody got %q", text)
		}
	}
	if p.count() != 1 {
		t.Errorf("the provider was asked %d times", p.count())
	}
}

func TestALoginThatTheProviderHasEndedIsOver(t *testing.T) {
	for name, text := range map[string]string{"claude": `{"error":"invalid_grant","error_description":"refresh-0"}`, "codex": `{"error":{"message":"refresh-0","code":"refresh_token_reused"}}`} {
		p := newProvider(t, "")
		k := keeper(t, p, name, 2*time.Minute)
		p.answersWith(http.StatusUnauthorized, "application/json", text)
		for range 2 {
			l, err := k.Login(t.Context(), name)
			ended, ok := errors.AsType[*EndedError](err)
			if !ok || ended.Name != name || !l.Access.IsZero() || strings.Contains(err.Error(), "refresh-0") {
				t.Errorf("%s: %v, %v", name, l, err)
			}
			if r := remedy.Of(err); len(r) != 1 || r[0].Do != remedy.LogIn || r[0].Args[0] != name {
				t.Errorf("%s: the remedies are %v", name, r)
			}
		}
		if p.count() != 1 {
			t.Errorf("%s: the provider was asked %d times", name, p.count())
		}
		// Until the user logs in again.
		p.answersWith(0, "", "")
		again := Login{Access: value(t, "again"), Refresh: value(t, "r"), Expires: time.Now().Add(time.Hour)}
		if err := k.Store.Put(t.Context(), name, again); err != nil {
			t.Fatal(err)
		}
		if l, err := k.Login(t.Context(), name); err != nil || l.Access.Reveal() != "again" {
			t.Errorf("%s: %v, %v", name, l, err)
		}
	}
}

func TestAProviderThatDoesNotAnswerLeavesTheTokenUntilItExpires(t *testing.T) {
	p := newProvider(t, "refresh-0")
	k := keeper(t, p, "claude", 2*time.Minute)
	for _, c := range []struct {
		status     int
		kind, text string
	}{
		{500, "application/json", `{"error":"invalid_grant"}`},
		{429, "text/plain", "later"},
		{403, "text/html", "<html>refresh-0"},
		{400, "application/json", `{"error":"invalid_request","error_description":"refresh-0"}`},
		{302, "text/plain", ""},
		{200, "application/json", "refresh-0"},
		{200, "application/json", `{"token_type":"Bearer"}`},
		{200, "application/json", `{"access_token":"a\nb"}`},
	} {
		p.answersWith(c.status, c.kind, c.text)
		l, err := k.Login(t.Context(), "claude")
		if err == nil || l.Access.Reveal() != "access-0" || strings.Contains(err.Error(), "refresh-0") {
			t.Errorf("%+v: %v, %v", c, l, err)
		}
		late := k
		late.Now = func() time.Time { return time.Now().Add(3 * time.Minute) }
		if l, err := late.Login(t.Context(), "claude"); err == nil || !l.Access.IsZero() {
			t.Errorf("%+v: expired: %v, %v", c, l, err)
		}
	}
	if stored, err := k.Store.Get("claude"); err != nil || stored.Ended != "" || stored.Refresh.Reveal() != "refresh-0" {
		t.Errorf("stored is %+v, %v", stored, err)
	}
	p.answersWith(0, "", "")
	if l, err := k.Login(t.Context(), "claude"); err != nil || !strings.HasPrefix(l.Access.Reveal(), "access-1") {
		t.Errorf("when it answers again: %q, %v", l.Access.Reveal(), err)
	}
}

// Whoever waits may give up; the request that has used the refresh token up goes on to its end.
func TestAnAnswerIsKeptAlsoIfNobodyWaitsForIt(t *testing.T) {
	p := newProvider(t, "refresh-0")
	p.meeting = make(chan struct{})
	k := keeper(t, p, "claude", time.Minute)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := k.Login(ctx, "claude")
		done <- err
	}()
	<-p.arrived
	cancel()
	close(p.meeting)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if l, err := k.Store.Get("claude"); err != nil || l.Refresh.Reveal() != "refresh-1" {
		t.Errorf("stored is %v, %v", l, err)
	}
}

// What a process that died has left is what the provider takes, if it is whole.
func TestADraftIsTakenUpIfItIsWhole(t *testing.T) {
	p := newProvider(t, "refresh-new")
	k := keeper(t, p, "claude", time.Minute)
	draft := filepath.Join(k.Store.Dir, "claude.draft")
	whole := `{"accessToken":"access-new","refreshToken":"refresh-new","expires":"2001-01-01T00:00:00Z"}`
	for _, text := range []string{whole, "", whole[:50], strings.Replace(whole, "refresh-new", "", 1)} {
		if err := os.WriteFile(draft, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		before := p.refresh
		if l, err := k.Login(t.Context(), "claude"); err != nil || l.Refresh.Reveal() != p.refresh || p.refresh == before {
			t.Errorf("with the draft %q: %q, %v", text, l.Refresh.Reveal(), err)
		}
		if _, err := os.Lstat(draft); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the draft %q is still there: %v", text, err)
		}
		old := Login{Access: value(t, "access-old"), Refresh: value(t, p.refresh), Expires: time.Now()}
		if err := k.Store.Put(t.Context(), "claude", old); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLoginsAreTheUsersAlone(t *testing.T) {
	p := newProvider(t, "refresh-0")
	k := keeper(t, p, "gemini", time.Hour)
	file := filepath.Join(k.Store.Dir, "gemini.json")
	for path, want := range map[string]os.FileMode{k.Store.Dir: 0o700, file: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s has the mode %v, %v", path, info.Mode(), err)
		}
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if l, err := k.Login(t.Context(), "gemini"); err == nil || !strings.Contains(err.Error(), "others may read") || !l.Access.IsZero() {
		t.Errorf("a file that others may read: %v, %v", l, err)
	}
	if err := k.Store.Remove(t.Context(), "gemini"); err != nil {
		t.Error(err)
	}
	if _, err := k.Login(t.Context(), "gemini"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was removed: %v", err)
	}
	if err := k.Store.Remove(t.Context(), "gemini"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it was removed twice: %v", err)
	}
	l, err := newLogin(tokens{Access: "access-secret", Refresh: "refresh-secret"}, Login{})
	if text := fmt.Sprintf("%v %+v %#v %s", l, l, l, Stored{"x", l}); err != nil || strings.Contains(text, "-secret") {
		t.Errorf("printed it is %s, %v", text, err)
	}
	if text, err := json.Marshal(Stored{"x", l}); err == nil {
		t.Errorf("as JSON it is %s", text)
	}
}
