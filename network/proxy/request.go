package proxy

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"

	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/refusal"
)

// serveHTTP has a request judged, and sends it on if it is open. The connection goes on either way.
func serveHTTP(w http.ResponseWriter, r *http.Request) {
	s := r.Context().Value(sessionKey{}).(*session)
	s.requests.Add(1)
	select {
	case s.proxy.running <- struct{}{}:
		defer func() { <-s.proxy.running }()
	default:
		s.Refused(RuleTooMany, shown(r))
		panic(http.ErrAbortHandler) // an answer would wait for the guest to take it, and take memory
	}
	if rule := s.judge(r); rule != "" {
		s.refuse(w, r, rule)
		return
	}
	if text := s.answer(r); text != nil {
		writeAnswer(w, text)
		return
	}
	if s.broken != nil {
		s.failed(w, r, s.broken)
		return
	}
	if wanted := r.Header["Upgrade"]; len(wanted) != 1 || !strings.EqualFold(wanted[0], "websocket") {
		// Other protocols, such as HTTP/2, have requests that nobody would judge; a server may go on without them.
		r.Header.Del("Upgrade")
		r.Header.Del("Http2-Settings")
	}
	// What the host leaves out is not made up.
	w.Header()["Content-Type"], w.Header()["Date"] = nil, nil
	s.proxy.reverse(s, w).ServeHTTP(w, r)
}

// judge returns the rule that closes a request, or nothing.
func (s *session) judge(r *http.Request) (rule string) {
	host, port, err := net.SplitHostPort(r.Host)
	if err != nil {
		host, port = r.Host, strconv.Itoa(int(s.Port))
	}
	if !s.named(host) || port != strconv.Itoa(int(s.Port)) {
		return RuleHostHeader
	}
	if r.URL.Scheme != "" || r.URL.Host != "" || r.URL.Opaque != "" || r.Method == http.MethodConnect {
		return RuleAmbiguous // it is for a proxy
	}
	for name := range r.Trailer {
		if isJudged(name) {
			return RuleAmbiguous // some servers take trailers for headers, and what they say is not known yet
		}
	}
	// A server may take method and path from elsewhere: what it could read has to be open, all of it.
	methods, paths := []string{r.Method}, []string{r.URL.EscapedPath()}
	for name, values := range r.Header {
		switch plain := plainName(name); judgedFields[plain] {
		case methodField:
			for _, value := range values {
				methods = append(methods, strings.ToUpper(value))
			}
		case pathField:
			for _, value := range values {
				path, _, _ := strings.Cut(value, "?")
				paths = append(paths, path)
			}
		case messageField:
			if name != http.CanonicalHeaderKey(plain) {
				return RuleAmbiguous // such as Content_Length, which is the same to some
			}
			if plain == "host" { // beside the one of HTTP/2
				return RuleHostHeader
			}
		}
	}
	for _, method := range methods {
		for _, path := range paths {
			v := s.Judge(policy.Request{Scheme: s.scheme, Host: s.Name, Port: s.Port, Method: method, Path: path, Query: r.URL.RawQuery})
			if !v.Allow {
				return v.Rule
			}
		}
	}
	return ""
}

// plainName is a field's name as servers read it that know no underscores.
func plainName(name string) string { return strings.ToLower(strings.ReplaceAll(name, "_", "-")) }

// field is what servers take from a field of a request.
type field int

const (
	methodField  field = iota + 1
	pathField          // with a query
	messageField       // whose it is, or where it ends
)

// judgedFields are those at which judge looks, by their plainName.
var judgedFields = map[string]field{
	"x-http-method-override": methodField, "x-http-method": methodField, "x-method-override": methodField,
	"x-original-url": pathField, "x-rewrite-url": pathField,
	"host": messageField, "content-length": messageField, "transfer-encoding": messageField,
}

func isJudged(name string) bool { return judgedFields[plainName(name)] != 0 }

// judgedTrailer is a request's body, after which the trailer has nothing that only judge may let pass. Names that were not
// announced are known with its end.
type judgedTrailer struct {
	io.ReadCloser
	trailer http.Header
}

func (b judgedTrailer) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		maps.DeleteFunc(b.trailer, func(name string, _ []string) bool { return isJudged(name) })
	}
	return n, err
}

func (s *session) refuse(w http.ResponseWriter, r *http.Request, rule string) {
	s.Refused(rule, shown(r))
	answer := refusal.Refusal{Host: s.Name, Port: s.Port, Method: r.Method, Path: r.URL.EscapedPath(), Rule: rule}
	if rule == policy.RuleNotAllowed {
		answer.Allow = policy.RuleForRequest(policy.Request{Scheme: s.scheme, Host: s.Name, Port: s.Port, Method: r.Method, Path: answer.Path})
	}
	if answer.Allow != "" && s.Remedy != nil {
		answer.Remedy = s.Remedy(answer.Allow)
	}
	answer.ServeHTTP(w, r)
}

// shown is a request as a log has it: without the query, which may hold what is secret.
func shown(r *http.Request) string {
	text := r.Method + " " + r.URL.EscapedPath()
	return text[:min(len(text), maxShownRequest)]
}

// authority is the host, with its port where that is not the scheme's.
func (s *session) authority() string {
	if s.Port == 443 && s.tls() || s.Port == 80 && !s.tls() {
		return s.Name
	}
	return net.JoinHostPort(s.Name, strconv.Itoa(int(s.Port)))
}

// rewrite addresses a request to the host, and gives it back what a proxy that people know of would change.
func (s *session) rewrite(r *httputil.ProxyRequest) {
	r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = s.scheme, s.authority(), s.authority()
	r.Out.URL.RawQuery = r.In.URL.RawQuery
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if values, ok := r.In.Header[name]; ok {
			r.Out.Header[name] = values
		}
	}
	r.Out.Trailer = r.In.Trailer // into which they are written as they come
	if r.Out.Body != nil && len(r.Out.Trailer) > 0 {
		r.Out.Body = judgedTrailer{r.Out.Body, r.Out.Trailer}
	}
}

// failed answers a request that the host did not.
func (s *session) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // nobody waits for it
	}
	if withheld, ok := errors.AsType[*withheldError](err); ok {
		s.withhold(w, r, withheld)
		return
	}
	s.proxy.options.Logger.Debug("the host did not answer", "name", s.Name, "err", err)
	http.Error(w, fmt.Sprintf("the sandbox's network could not ask %s: %v", s.authority(), err), http.StatusBadGateway)
}
