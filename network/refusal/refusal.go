// Package refusal is the answer to a request of HTTP that a sandbox's policy does not let pass: a page that says what was
// refused and by which rule, and what its reader can do, for people and for programs.
package refusal

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"
)

// Refusal is what became of a request. It is an [http.Handler] that says so.
type Refusal struct {
	// Error tells this answer from one of the server that was asked: it is always [Error].
	Error string `json:"error"`

	Host   string `json:"host"` // name or address
	Port   uint16 `json:"port"`
	Method string `json:"method,omitempty"`
	Path   string `json:"path,omitempty"`
	Rule   string `json:"rule"`             // that decided
	Allow  string `json:"allow,omitempty"`  // the rule that would open it, if one would
	Remedy string `json:"remedy,omitempty"` // a command for the person whose sandbox it is
	Hint   string `json:"hint,omitempty"`   // a sentence on what the reader can do, where there is no such command

	Secret *Secret `json:"secret,omitempty"` // because of which it was refused
}

// Secret says where a secret goes whose placeholder was in a request.
type Secret struct {
	Name    string   `json:"name"`    // of the variable that has the placeholder
	Hosts   []string `json:"hosts"`   // that get it, each with its port if that is not 443, and with a path if it gets it below that only
	Headers []string `json:"headers"` // in which it is put
	Query   bool     `json:"query,omitempty"`
	Body    bool     `json:"body,omitempty"`
	Missing bool     `json:"missing,omitempty"` // it would go there, if the sandbox had it
	Reason  string   `json:"reason,omitempty"`  // sentences that say why, if it is that the request could not be signed
}

// Error is what programs know a refusal by.
const Error = "sandbox_policy"

// Header is on each answer that is a refusal, with the rule that decided.
const Header = "Sandbox-Refused"

// String says in sentences what a Refusal is.
func (r Refusal) String() string {
	var b strings.Builder
	b.WriteString("The sandbox's network policy refused this request")
	if r.Method != "" {
		fmt.Fprintf(&b, " (%s %s)", quote(r.Method), quote(r.Path))
	}
	fmt.Fprintf(&b, " to %s: %s.\n", net.JoinHostPort(quote(r.Host), strconv.Itoa(int(r.Port))), quote(r.Rule))
	b.WriteString("It is not an error of the server or the network, and trying again does not help.\n")
	if r.Secret != nil {
		b.WriteString(r.Secret.explain())
	}
	if r.Hint != "" {
		fmt.Fprintf(&b, "%s\n", quote(r.Hint))
	}
	if r.Remedy != "" {
		fmt.Fprintf(&b, "If the task needs it, ask the user to run, on the machine that has the sandbox:\n\n    %s\n", quote(r.Remedy))
	}
	return b.String()
}

// explain says what the reader can do.
func (s *Secret) explain() string {
	name, hosts := quote(s.Name), quote(strings.Join(s.Hosts, ", "))
	if s.Missing {
		return fmt.Sprintf("The variable %s stands for a secret for %s, which this sandbox does not have at present: ask the user to give it the secret again.\n", name, hosts)
	}
	if s.Reason != "" {
		return fmt.Sprintf("The variable %s stands for a key of AWS, by which the sandbox's network signs requests to %s. %s\n", name, hosts, s.Reason)
	}
	places := "in the headers " + strings.Join(s.Headers, ", ")
	if len(s.Headers) == 1 {
		places = "in the header " + s.Headers[0]
	}
	if s.Query {
		places += ", in the query of the URL"
	}
	if s.Body {
		places += ", in a body of JSON or of a form"
	}
	return fmt.Sprintf("The text in the variable %s stands for a secret, which takes its place in requests by HTTPS to %s only, %s. This request has the text elsewhere, where it is worth nothing.\n", name, hosts, quote(places))
}

// quote makes text that a guest has chosen safe for a terminal, and leaves what is printable as it is.
func quote(text string) string {
	quoted := strconv.QuoteToASCII(text)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// ServeHTTP answers with status 403: in JSON if the client would have that or has sent it, otherwise as text, and to a client
// of AWS as an error of AWS, whose message it shows.
func (r Refusal) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.Error = Error
	h := w.Header()
	h.Set(Header, quote(r.Rule))
	h.Set("Cache-Control", "no-store")
	forAWS := r.Secret != nil && r.Secret.Reason != ""
	if forAWS {
		h.Set("X-Amzn-Errortype", Error)
	}
	if !wantsJSON(request) {
		if forAWS {
			r.writeXML(w, request)
			return
		}
		h.Set("Content-Type", "text/plain; charset=utf-8")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(r.String()))
		return
	}
	h.Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(struct {
		Refusal
		Message string `json:"message"`
	}{r, r.String()})
}

// writeXML writes an error as AWS's Query protocol and S3's REST API have it.
func (r Refusal) writeXML(w http.ResponseWriter, request *http.Request) {
	type message struct {
		XMLName xml.Name `xml:"Error"`
		Code    string
		Message string
	}
	var text any = message{Code: r.Error, Message: r.String()}
	if len(request.Header["X-Amz-Content-Sha256"]) == 0 { // which is a must for S3 alone
		text = struct {
			XMLName xml.Name `xml:"ErrorResponse"`
			Error   any
		}{Error: text}
	}
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusForbidden)
	_ = xml.NewEncoder(w).Encode(text)
}

func wantsJSON(r *http.Request) bool {
	for _, field := range []string{"Accept", "Content-Type"} {
		for value := range strings.SplitSeq(strings.Join(r.Header.Values(field), ","), ",") {
			kind, _, err := mime.ParseMediaType(value)
			if err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json") || strings.HasPrefix(kind, "application/x-amz-json-")) {
				return true
			}
		}
	}
	return false
}
