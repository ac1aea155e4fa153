package refusal_test

import (
	"encoding/json"
	"encoding/xml"
	"net/http"
	"net/http/httptest"
	"reflect"
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
	r.Remedy, r.Hint = "", "Ask for it."
	if w := answer(r, "Accept", ""); !strings.HasSuffix(w.Body.String(), "\nAsk for it.\n") {
		t.Errorf("the hint is missing in\n%s", w.Body)
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

func TestARefusalBecauseOfASecretSaysWhereItGoes(t *testing.T) {
	s := refusal.Secret{Name: "API_KEY", Hosts: []string{"a.example", "b.example:8443"}, Headers: []string{"X-Api-Key"}}
	both := s
	both.Headers, both.Query, both.Body = []string{"Authorization", "X-Api-Key"}, true, true
	missing := s
	missing.Missing = true
	for _, c := range []struct {
		secret refusal.Secret
		want   string
	}{
		{s, "The text in the variable API_KEY stands for a secret, which takes its place in requests by HTTPS to a.example, b.example:8443 only, in the header X-Api-Key. This"},
		{both, "in the headers Authorization, X-Api-Key, in the query of the URL, in a body of JSON or of a form. This"},
		{missing, "The variable API_KEY stands for a secret for a.example, b.example:8443, which this sandbox does not have at present: ask the user"},
	} {
		r := refusal.Refusal{Host: "c.example", Port: 443, Method: "GET", Path: "/", Rule: "secret-misplaced", Secret: &c.secret}
		if text := answer(r, "Accept", "").Body.String(); !strings.Contains(text, c.want) || !strings.Contains(text, "to c.example:443: secret-misplaced.") {
			t.Error(text)
		}
		var got refusal.Refusal
		if err := json.Unmarshal(answer(r, "Accept", "application/json").Body.Bytes(), &got); err != nil || !reflect.DeepEqual(*got.Secret, c.secret) {
			t.Errorf("%+v, %v", got.Secret, err)
		}
	}
}

// TestARefusalOfARequestToAWSIsAnErrorOfAWS reads it as the SDKs for Go and for Python do.
func TestARefusalOfARequestToAWSIsAnErrorOfAWS(t *testing.T) {
	r := refusal.Refusal{Host: "sts.amazonaws.com", Port: 443, Method: "POST", Path: "/<", Rule: "aws-credentials", Secret: &refusal.Secret{Name: "AWS_ACCESS_KEY_ID", Reason: "That & why."}}
	type message struct{ Code, Message string }
	for _, c := range []struct{ header, value, root string }{
		{"Content-Type", "application/x-www-form-urlencoded; charset=utf-8", "ErrorResponse"},
		{"X-Amz-Content-Sha256", "UNSIGNED-PAYLOAD", "Error"},
		{"Content-Type", "application/x-amz-json-1.1", ""},
	} {
		w := answer(r, c.header, c.value)
		var got message
		var err error
		switch c.root {
		case "":
			got.Code = w.Header().Get("X-Amzn-Errortype")
			err = json.Unmarshal(w.Body.Bytes(), &got)
		case "Error":
			var wrapped struct {
				XMLName xml.Name `xml:"Error"`
				message
			}
			err = xml.Unmarshal(w.Body.Bytes(), &wrapped)
			got = wrapped.message
		default:
			var wrapped struct {
				XMLName xml.Name `xml:"ErrorResponse"`
				Error   message
			}
			err = xml.Unmarshal(w.Body.Bytes(), &wrapped)
			got = wrapped.Error
		}
		if err != nil || w.Code != http.StatusForbidden || got != (message{refusal.Error, r.String()}) || !strings.Contains(got.Message, "That & why.") {
			t.Errorf("%s: %+v, %v\n%s", c.value, got, err, w.Body)
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
