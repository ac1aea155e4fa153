package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync/atomic"

	"github.com/sourcery-zone/sandbox/network/aws"
	"github.com/sourcery-zone/sandbox/network/refusal"
	"github.com/sourcery-zone/sandbox/network/secret"
)

// sender sends a request as it is to leave, after all that a proxy changes: with secrets in it, which it masks in all that
// the host says.
type sender struct {
	*session
	answer http.ResponseWriter
}

// RoundTrip changes r, which the proxy has made for it.
func (s sender) RoundTrip(r *http.Request) (*http.Response, error) {
	secrets, host := s.proxy.options.Secrets, secret.Host{Name: s.Name, Port: s.Port}
	if rule, name := secrets.Apply(host, r); rule != "" {
		return nil, &withheldError{rule, name}
	}
	// The host may answer before it has all of the request, which goes on all the same. That is not said of a request which
	// is refused, so that the server gets its body out of the way.
	_ = http.NewResponseController(s.answer).EnableFullDuplex()
	if secrets == nil {
		return s.carried(s.transport.RoundTrip(r))
	}
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
			secrets.MaskHeader(host, http.Header(h))
			return nil
		},
	}
	// A trace is asked before the one that there is, which hands the guest what it is told of.
	response, err := s.transport.RoundTrip(r.WithContext(httptrace.WithClientTrace(r.Context(), trace)))
	if err != nil {
		if sent.Load() {
			err = withoutAnswer(err)
		}
		return nil, err
	}
	secrets.Mask(host, response)
	return s.carried(response, nil)
}

// withheldError is why a request was not sent.
type withheldError struct{ rule, name string }

func (e *withheldError) Error() string { return e.rule + ": " + e.name }

var errAnswer = errors.New("it ended the connection, or answered with what is not HTTP")

// withoutAnswer is err if it has nothing in it that the host has said, which may be a secret in a broken answer.
func withoutAnswer(err error) error {
	if failed, ok := errors.AsType[*net.OpError](err); ok {
		return failed
	}
	for _, known := range []error{io.ErrUnexpectedEOF, io.EOF, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, known) {
			return known
		}
	}
	return errAnswer
}

// withhold answers a request that was not sent.
func (s *session) withhold(w http.ResponseWriter, r *http.Request, e *withheldError) {
	spec := s.proxy.options.Secrets.Spec(e.name)
	explained := &refusal.Secret{Name: spec.Name, Hosts: spec.Places(), Headers: spec.Headers, Query: spec.Query, Body: spec.Body, Missing: e.rule == secret.RuleNoValue, Reason: aws.Explain(e.rule)}
	w.Header().Del("Date") // which is this proxy's to say
	s.Refused(e.rule, shown(r))
	refusal.Refusal{Host: s.Name, Port: s.Port, Method: r.Method, Path: r.URL.EscapedPath(), Rule: e.rule, Secret: explained}.ServeHTTP(w, r)
}
