package proxy

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sourcery-zone/sandbox/network/secret"
)

// TestTokensAreNotAskedOfTheHost has a guest that asks for tokens, with what it has and in all the ways in which one can write
// the path: it gets placeholders, and the host that would give tokens is not asked.
func TestTokensAreNotAskedOfTheHost(t *testing.T) {
	both(t, func(t *testing.T, h2 bool) {
		var asked atomic.Int64
		answer := `{"access_token":"` + token + `","refresh_token":"nothing"}`
		l := newLab(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			_, _ = w.Write([]byte(r.Method + " " + r.URL.Path + " " + r.Header.Get("Authorization")))
		}), everything, withSecrets(t, host), func(_ *lab, o *Options) {
			o.Answers = []Answer{{Host: secret.Host{Name: host, Port: 443}, Path: "/v1/oauth/token", JSON: []byte(answer)}}
		})
		client := l.client(h2)
		for _, path := range []string{"/v1/oauth/token", "/v1/oauth/token?a=b", "/v1/oauth/%74oken"} {
			for _, body := range []string{`{"grant_type":"refresh_token","refresh_token":"nothing"}`, "grant_type=authorization_code&code=x", strings.Repeat("x", 1<<20), ""} {
				r, text := ask(t, client, "POST", path, strings.NewReader(body), "Authorization", "Bearer "+token, "Content-Type", "application/json")
				if r.StatusCode != http.StatusOK || text != answer || r.Header.Get("Content-Type") != "application/json" {
					t.Errorf("%s: %d %q", path, r.StatusCode, text)
				}
			}
		}
		if n := asked.Load(); n != 0 {
			t.Errorf("the host was asked %d times", n)
		}
		// All else is the host's to answer, without what is a secret.
		for method, path := range map[string]string{"GET": "/v1/oauth/token", "POST": "/v1/oauth/hello"} {
			if _, text := ask(t, client, method, path, nil, "Authorization", "Bearer "+token); text != method+" "+path+" Bearer "+token {
				t.Errorf("%s %s: %q", method, path, text)
			}
		}
	})
}
