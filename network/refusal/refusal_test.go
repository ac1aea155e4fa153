package refusal_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network/refusal"
)

func answer(r refusal.Refusal, header, value string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	request := httptest.NewRequest("GET", "/", nil)
	request.Header.Set(header, value)
	r.ServeHTTP(w, request)
	return w
}

func TestRefusal(t *testing.T) {
	r := refusal.Refusal{
		Host: "a.example", Port: 80, Method: "GET", Path: "/x", Rule: "not-allowed",
		Allow: "a.example:80", Remedy: "sandbox net allow work a.example:80",
	}
	for _, accept := range []string{"", "*/*", "text/html"} {
		w := answer(r, "Accept", accept)
		if w.Code != http.StatusForbidden || w.Header().Get(refusal.Header) != "not-allowed" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
			t.Errorf("%q: %d %v", accept, w.Code, w.Header())
		}
		for _, part := range []string{"GET /x", "a.example:80", "not-allowed", r.Remedy} {
			if !strings.Contains(w.Body.String(), part) {
				t.Errorf("%q: %q is missing in\n%s", accept, part, w.Body)
			}
		}
	}
	for header, value := range map[string]string{"Accept": "text/plain;q=0.1, application/json", "Content-Type": "application/vnd.api+json; charset=utf-8"} {
		w := answer(r, header, value)
		var got struct {
			refusal.Refusal
			Message string
		}
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatalf("%s: %v in\n%s", header, err, w.Body)
		}
		want := r
		want.Error = refusal.Error
		if got.Refusal != want || got.Message != r.String() {
			t.Errorf("%s: %+v, want %+v", header, got, want)
		}
	}
}

// What a guest writes into a request is read by whoever looks at its output.
func TestRefusalIsSafeForATerminal(t *testing.T) {
	r := refusal.Refusal{Host: "a\x1b[2J\u202eb", Method: "G\nT", Path: "/\x1b]0;x\a", Rule: "not-allowed"}
	w := answer(r, "Accept", "")
	if text := w.Body.String(); strings.ContainsAny(text, "\x1b\a\u202e") || strings.Count(text, "\n") != 2 {
		t.Errorf("%q", text)
	}
}
