package proxy

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// Answer is what the host is not asked for: POST requests over TLS to a path of it are answered with a text. So are a guest's own
// requests for tokens, of which it has placeholders.
type Answer struct {
	Host secret.Host
	Path string
	JSON []byte
}

// answer is what a request of the session's is answered with; nil, if the host is to answer.
func (s *session) answer(r *http.Request) []byte {
	if !s.tls() || r.Method != http.MethodPost {
		return nil
	}
	asked, err := policy.PathSegments(r.URL.EscapedPath())
	if err != nil {
		return nil
	}
	for _, a := range s.proxy.options.Answers {
		path, err := policy.PathSegments(a.Path)
		if err == nil && a.Host == (secret.Host{Name: s.Name, Port: s.Port}) && slices.Equal(asked, path) {
			return a.JSON
		}
	}
	return nil
}

func writeAnswer(w http.ResponseWriter, text []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(text)
}
