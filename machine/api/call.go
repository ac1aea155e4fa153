package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sourcery-zone/sandbox/machine/snapshot"
)

// Backend is what does what a supervisor is asked for. Its methods are called by
// several clients at once, and each returns when it is done. The context ends when
// the client goes: what must not be done by half goes on without it.
type Backend interface {
	Stop(context.Context, StopRequest) error
	Kill(context.Context, KillRequest) error
	Pause(context.Context) error
	Resume(context.Context) error
	Save(context.Context, SaveRequest) (snapshot.Manifest, error)
	CopyHome(context.Context, CopyHomeRequest) error
	Resize(context.Context, Sizes) (Sizes, error)
	Memory(context.Context) (Memory, error)
	Quotas(context.Context) (Quotas, error)
	Publish(context.Context, Ports) (Ports, error)
	Unpublish(context.Context, Ports) error
	Mount(context.Context, MountRequest) (Mounted, error)
	Unmount(context.Context, UnmountRequest) error
	AutoPublish(context.Context, AutoPorts) error
	ChangeRules(context.Context, RuleChange) error
	AnswerQuestion(context.Context, QuestionAnswer) error
	RevokeSecret(context.Context, SecretName) error
	Console(context.Context, io.Writer) error
	ConsoleInput(context.Context, ConsoleInputRequest, Accept) error
	SSH(context.Context, Accept) error
	QMP(context.Context, QMPRequest, Accept) error
}

// Accept begins a stream: an error before it is called refuses the stream. Who calls
// it closes the connection.
type Accept func() (net.Conn, error)

// NewServer returns a server of b's calls. Closing it ends their contexts, and the
// connections of all clients but those of streams.
func NewServer(b Backend) *http.Server {
	mux := http.NewServeMux()
	stop.serve(mux, withoutAnswer(b.Stop))
	kill.serve(mux, withoutAnswer(b.Kill))
	pause.serve(mux, bare(b.Pause))
	resume.serve(mux, bare(b.Resume))
	save.serve(mux, b.Save)
	copyHome.serve(mux, withoutAnswer(b.CopyHome))
	resize.serve(mux, b.Resize)
	memory.serve(mux, func(ctx context.Context, _ nothing) (Memory, error) { return b.Memory(ctx) })
	quotas.serve(mux, func(ctx context.Context, _ nothing) (Quotas, error) { return b.Quotas(ctx) })
	publish.serve(mux, b.Publish)
	unpublish.serve(mux, withoutAnswer(b.Unpublish))
	mount.serve(mux, b.Mount)
	unmount.serve(mux, withoutAnswer(b.Unmount))
	autoPublish.serve(mux, withoutAnswer(b.AutoPublish))
	changeRules.serve(mux, withoutAnswer(b.ChangeRules))
	answerQuestion.serve(mux, withoutAnswer(b.AnswerQuestion))
	revokeSecret.serve(mux, withoutAnswer(b.RevokeSecret))
	console.serveText(mux, func(ctx context.Context, _ nothing, w io.Writer) error { return b.Console(ctx, w) })
	consoleInput.serveStream(mux, b.ConsoleInput)
	ssh.serveStream(mux, func(ctx context.Context, _ nothing, accept Accept) error { return b.SSH(ctx, accept) })
	monitor.serveStream(mux, b.QMP)
	return &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
}

// Client calls one supervisor.
type Client struct {
	// Dial opens a connection to the socket of its API.
	Dial func(context.Context) (net.Conn, error)
}

// nothing is the request or the answer of a call that has none.
type nothing struct{}

func withoutAnswer[Request any](do func(context.Context, Request) error) func(context.Context, Request) (nothing, error) {
	return func(ctx context.Context, r Request) (nothing, error) { return nothing{}, do(ctx, r) }
}

func bare(do func(context.Context) error) func(context.Context, nothing) (nothing, error) {
	return func(ctx context.Context, _ nothing) (nothing, error) { return nothing{}, do(ctx) }
}

// call is the name of a call, with the types of its request and its answer.
type call[Request, Answer any] string

func (c call[Request, Answer]) path() string { return fmt.Sprintf("/v%d/%s", Version, c) }

// maxRequest bounds what is read of a request, in bytes. Those that make sense are
// far below.
const maxRequest = 64 << 10

// handle answers a request by what do returns, unless that has answered it itself.
func (c call[Request, Answer]) handle(mux *http.ServeMux, do func(w http.ResponseWriter, r *http.Request, request Request) (answered bool, err error)) {
	mux.HandleFunc("POST "+c.path(), func(w http.ResponseWriter, r *http.Request) {
		var request Request
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest))
		d.DisallowUnknownFields()
		if err := d.Decode(&request); err != nil {
			refuse(w, Errorf(CodeInvalid, "the request %s is not what it should be: %v", c, err))
			return
		}
		if answered, err := do(w, r, request); err != nil && !answered {
			refuse(w, err)
		}
	})
}

func refuse(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusConflict)
	_ = json.NewEncoder(w).Encode(portable(err)) // who has gone needs no answer
}

func (c call[Request, Answer]) serve(mux *http.ServeMux, do func(context.Context, Request) (Answer, error)) {
	c.handle(mux, func(w http.ResponseWriter, r *http.Request, request Request) (bool, error) {
		answer, err := do(r.Context(), request)
		if err != nil {
			return false, err
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
		return true, nil
	})
}

// serveText is serve for an answer that is text of any length, each piece of which is
// on its way at once.
func (c call[Request, Answer]) serveText(mux *http.ServeMux, do func(context.Context, Request, io.Writer) error) {
	c.handle(mux, func(w http.ResponseWriter, r *http.Request, request Request) (bool, error) {
		out := &flusher{ResponseController: http.NewResponseController(w), w: w}
		err := do(r.Context(), request, out)
		if err == nil && !out.begun {
			w.WriteHeader(http.StatusOK)
		}
		return out.begun, err
	})
}

type flusher struct {
	*http.ResponseController
	w     http.ResponseWriter
	begun bool
}

func (f *flusher) Write(p []byte) (int, error) {
	if !f.begun {
		f.begun = true
		f.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	}
	n, err := f.w.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.Flush()
}

// serveStream is serve for a call that becomes a stream.
func (c call[Request, Answer]) serveStream(mux *http.ServeMux, do func(context.Context, Request, Accept) error) {
	c.handle(mux, func(w http.ResponseWriter, r *http.Request, request Request) (bool, error) {
		if r.Header.Get("Upgrade") != string(c) {
			return false, Errorf(CodeInvalid, "the request %s needs the header Upgrade: %[1]s", c)
		}
		accepted := false
		err := do(r.Context(), request, func() (net.Conn, error) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return nil, err
			}
			accepted = true
			fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", c)
			if err := rw.Flush(); err != nil {
				conn.Close()
				return nil, err
			}
			return &bufferedConn{Conn: conn, r: rw.Reader}, nil
		})
		return accepted, err
	})
}

// bufferedConn is a connection some of whose bytes were read ahead.
type bufferedConn struct {
	net.Conn
	r io.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// CloseWrite says that no more comes from this end.
func (c *bufferedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// send makes the request on a connection of its own, which the caller closes with the
// answer's body.
func (c call[Request, Answer]) send(ctx context.Context, client *Client, request Request) (*http.Response, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sandbox"+c.path(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return client.Dial(ctx) },
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return resp, answerError(resp)
}

// ask makes a request and reads its answer.
func (c call[Request, Answer]) ask(ctx context.Context, client *Client, request Request) (answer Answer, err error) {
	resp, err := c.send(ctx, client, request)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return answer, fmt.Errorf("reading the supervisor's answer: %w", err)
	}
	return answer, nil
}

// open makes a request that becomes a stream. The caller closes the connection.
func (c call[Request, Answer]) open(ctx context.Context, client *Client, request Request) (_ net.Conn, err error) {
	body, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	conn, err := client.Dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://sandbox"+c.path(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", string(c))
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer resp.Body.Close()
		if err := answerError(resp); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("the supervisor answers %s in place of a stream", resp.Status)
	}
	return &bufferedConn{Conn: conn, r: r}, nil
}

// maxError bounds what is read of an answer that is an error, in bytes.
const maxError = 64 << 10

// answerError returns the error that an answer is, and closes its body then.
func answerError(resp *http.Response) error {
	switch {
	case resp.StatusCode < 400:
		return nil
	case resp.StatusCode == http.StatusNotFound:
		resp.Body.Close()
		return errors.New("its supervisor is of another version: restart the sandbox")
	}
	defer resp.Body.Close()
	var e Error
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxError)).Decode(&e); err != nil || e.Message == "" {
		return fmt.Errorf("the supervisor answers %s", resp.Status)
	}
	return &e
}
