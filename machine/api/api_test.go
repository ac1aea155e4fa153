package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/machine/snapshot"
	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/virtiofs"
)

// recorder is a Backend that remembers its requests and answers all with fail, or
// with something.
type recorder struct {
	got  []any
	fail error
	gone chan struct{} // gets one when Pause is called, and is closed when its context has ended
}

func (r *recorder) did(request any) error {
	r.got = append(r.got, request)
	return r.fail
}

func (r *recorder) Stop(_ context.Context, q StopRequest) error { return r.did(q) }
func (r *recorder) Kill(_ context.Context, q KillRequest) error { return r.did(q) }
func (r *recorder) Resume(context.Context) error                { return r.did("resume") }
func (r *recorder) Pause(ctx context.Context) error {
	if r.gone == nil {
		return r.did("pause")
	}
	r.gone <- struct{}{}
	<-ctx.Done()
	close(r.gone)
	return nil
}

func (r *recorder) Save(_ context.Context, q SaveRequest) (snapshot.Manifest, error) {
	return snapshot.Manifest{Tag: q.Tag, Pause: time.Second}, r.did(q)
}
func (r *recorder) CopyHome(_ context.Context, q CopyHomeRequest) error { return r.did(q) }
func (r *recorder) Resize(_ context.Context, q Sizes) (Sizes, error)    { return q, r.did(q) }
func (r *recorder) Memory(context.Context) (Memory, error)              { return Memory{7}, r.did("memory") }

func (r *recorder) Quotas(context.Context) (Quotas, error)            { return someQuotas, r.did("quotas") }
func (r *recorder) Publish(_ context.Context, q Ports) (Ports, error) { return q, r.did(q) }
func (r *recorder) Unpublish(_ context.Context, q Ports) error        { return r.did(q) }
func (r *recorder) Mount(_ context.Context, q MountRequest) (Mounted, error) {
	return Mounted{Share: q.Share}, r.did(q)
}
func (r *recorder) Unmount(_ context.Context, q UnmountRequest) error { return r.did(q) }
func (r *recorder) AutoPublish(_ context.Context, q AutoPorts) error  { return r.did(q) }
func (r *recorder) ChangeRules(_ context.Context, q RuleChange) error { return r.did(q) }

func (r *recorder) RevokeSecret(_ context.Context, q SecretName) error       { return r.did(q) }
func (r *recorder) AnswerQuestion(_ context.Context, q QuestionAnswer) error { return r.did(q) }

func (r *recorder) Console(_ context.Context, w io.Writer) error {
	if err := r.did("console"); err != nil {
		return err
	}
	_, err := io.WriteString(w, "login: ")
	return err
}

func (r *recorder) ConsoleInput(_ context.Context, q ConsoleInputRequest, accept Accept) error {
	return r.echo(q, accept)
}
func (r *recorder) SSH(_ context.Context, accept Accept) error { return r.echo("ssh", accept) }
func (r *recorder) QMP(_ context.Context, q QMPRequest, accept Accept) error {
	return r.echo(q, accept)
}

// echo says backwards, as a whole, what it has heard to the end.
func (r *recorder) echo(request any, accept Accept) error {
	if err := r.did(request); err != nil {
		return err
	}
	conn, err := accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	heard, err := io.ReadAll(conn)
	if err == nil {
		_, err = fmt.Fprintf(conn, "heard %s", heard)
	}
	return err
}

// serve returns a client of the handler.
func serve(t *testing.T, server *http.Server) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	return &Client{Dial: func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}
}

var somePorts = Ports{Forwards: []network.Forward{{HostIP: netip.IPv6Loopback(), HostPort: 8080, GuestPort: 80, Proto: network.UDP}}}

var (
	someShare  = virtiofs.Share{Source: "/src/x", Target: "/srv/x", ReadOnly: true}
	someRules  = RuleChange{Reset: true, Deny: []string{"a.example"}, Allow: []string{"b.example"}}
	someAnswer = QuestionAnswer{ID: "k3f9ab", Answer: "once"}
)

// calls makes every call there is, and returns its answer.
func calls(ctx context.Context, c *Client) map[string]func() (any, error) {
	without := func(err error) (any, error) { return nil, err }
	stream := func(conn net.Conn, err error) (any, error) {
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "a word")
		if err == nil {
			err = conn.(interface{ CloseWrite() error }).CloseWrite()
		}
		if err != nil {
			return nil, err
		}
		answer, err := io.ReadAll(conn)
		return string(answer), err
	}
	return map[string]func() (any, error){
		"stop":         func() (any, error) { return without(c.Stop(ctx, StopRequest{Grace: time.Minute})) },
		"kill":         func() (any, error) { return without(c.Kill(ctx, KillRequest{Restoring: true})) },
		"pause":        func() (any, error) { return without(c.Pause(ctx)) },
		"resume":       func() (any, error) { return without(c.Resume(ctx)) },
		"save":         func() (any, error) { return c.Save(ctx, SaveRequest{Tag: "a&b", WithHome: true, NoSync: true}) },
		"home":         func() (any, error) { return without(c.CopyHome(ctx, CopyHomeRequest{Draft: ".new-x"})) },
		"resize":       func() (any, error) { return c.Resize(ctx, Sizes{MemoryMiB: 512, DiskMiB: 64}) },
		"memory":       func() (any, error) { return c.Memory(ctx) },
		"quotas":       func() (any, error) { return c.Quotas(ctx) },
		"publish":      func() (any, error) { return c.Publish(ctx, somePorts) },
		"unpublish":    func() (any, error) { return without(c.Unpublish(ctx, somePorts)) },
		"mount":        func() (any, error) { return c.Mount(ctx, MountRequest{someShare}) },
		"unmount":      func() (any, error) { return without(c.Unmount(ctx, UnmountRequest{"/srv/x", true})) },
		"auto-publish": func() (any, error) { return without(c.AutoPublish(ctx, AutoPorts{true})) },
		"rules":        func() (any, error) { return without(c.ChangeRules(ctx, someRules)) },
		"answer":       func() (any, error) { return without(c.AnswerQuestion(ctx, someAnswer)) },
		"revoke":       func() (any, error) { return without(c.RevokeSecret(ctx, SecretName{"KEY"})) },
		"console": func() (any, error) {
			var text strings.Builder
			err := c.Console(ctx, &text)
			return text.String(), err
		},
		"input": func() (any, error) { return stream(c.ConsoleInput(ctx, ConsoleInputRequest{Take: true})) },
		"ssh":   func() (any, error) { return stream(c.SSH(ctx)) },
		"qmp":   func() (any, error) { return stream(c.QMP(ctx, QMPRequest{Unsafe: true})) },
	}
}

var someQuotas = Quotas{[]Quota{{"/src", "/home/agent/src", 5, 7}}}

func TestCallsArriveAsTheyWereMade(t *testing.T) {
	const heard = "heard a word"
	for name, want := range map[string]struct{ request, answer any }{
		"stop":      {StopRequest{Grace: time.Minute}, nil},
		"kill":      {KillRequest{Restoring: true}, nil},
		"pause":     {"pause", nil},
		"resume":    {"resume", nil},
		"save":      {SaveRequest{Tag: "a&b", WithHome: true, NoSync: true}, snapshot.Manifest{Tag: "a&b", Pause: time.Second}},
		"home":      {CopyHomeRequest{Draft: ".new-x"}, nil},
		"resize":    {Sizes{MemoryMiB: 512, DiskMiB: 64}, Sizes{MemoryMiB: 512, DiskMiB: 64}},
		"memory":    {"memory", Memory{7}},
		"quotas":    {"quotas", someQuotas},
		"publish":   {somePorts, somePorts},
		"unpublish": {somePorts, nil},
		"mount":     {MountRequest{someShare}, Mounted{Share: someShare}},
		"unmount":   {UnmountRequest{"/srv/x", true}, nil},
		"rules":     {someRules, nil},
		"answer":    {someAnswer, nil},
		"revoke":    {SecretName{"KEY"}, nil},
		"console":   {"console", "login: "},
		"input":     {ConsoleInputRequest{Take: true}, heard},
		"ssh":       {"ssh", heard},
		"qmp":       {QMPRequest{Unsafe: true}, heard},
	} {
		b := &recorder{}
		answer, err := calls(t.Context(), serve(t, NewServer(b)))[name]()
		if err != nil || !reflect.DeepEqual(answer, want.answer) {
			t.Errorf("%s is answered %+v, %v, want %+v", name, answer, err, want.answer)
		}
		if len(b.got) != 1 || !reflect.DeepEqual(b.got[0], want.request) {
			t.Errorf("%s arrives as %+v, want %+v", name, b.got, want.request)
		}
	}
}

func TestErrorsKeepTheirKindOnTheWay(t *testing.T) {
	all := []error{ErrBusy, ErrNotRunning, ErrConsoleTaken, ErrGuest, fs.ErrNotExist, fs.ErrExist}
	for _, kind := range all {
		b := &recorder{fail: fmt.Errorf("it cannot be done: %w", kind)}
		for name, do := range calls(t.Context(), serve(t, NewServer(b))) {
			_, err := do()
			if !errors.Is(err, kind) || err.Error() != b.fail.Error() {
				t.Errorf("%s: %v, want %v", name, err, b.fail)
			}
			for _, other := range all {
				if other != kind && errors.Is(err, other) {
					t.Errorf("%s: %v is also %v", name, err, other)
				}
			}
		}
	}
	// One that is said with a code is as good.
	b := &recorder{fail: fmt.Errorf("now: %w", Errorf(CodeBusy, "another one is at it"))}
	if err := serve(t, NewServer(b)).Pause(t.Context()); !errors.Is(err, ErrBusy) || err.Error() != "now: another one is at it" {
		t.Errorf("got %v", err)
	}
}

func TestSupervisorOfAnotherVersionIsNamed(t *testing.T) {
	old := http.NewServeMux()
	old.HandleFunc("POST /v1/pause", func(http.ResponseWriter, *http.Request) { t.Error("it was called") })
	for name, do := range calls(t.Context(), serve(t, &http.Server{Handler: old})) {
		if _, err := do(); err == nil || !strings.Contains(err.Error(), "of another version: restart the sandbox") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRequestsThatMakeNoSenseReachNobody(t *testing.T) {
	b := &recorder{}
	c := serve(t, NewServer(b))
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.Dial(ctx) }}}
	for _, body := range []string{"", "{", `{"graze": 1}`, `{"grace": "much"}`, `{"grace": ` + strings.Repeat(" ", maxRequest) + `1}`} {
		resp, err := client.Post("http://sandbox/v2/stop", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var e *Error
		if err := answerError(resp); !errors.As(err, &e) || e.Code != CodeInvalid {
			t.Errorf("%.20q: %v", body, err)
		}
	}
	resp, err := client.Post("http://sandbox/v2/qmp", "application/json", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if err := answerError(resp); err == nil || !strings.Contains(err.Error(), "Upgrade: qmp") {
		t.Errorf("a stream that is not asked for as one: %v", err)
	}
	if len(b.got) > 0 {
		t.Errorf("reached: %+v", b.got)
	}
}

func TestCallEndsWithItsClient(t *testing.T) {
	b := &recorder{gone: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	c := serve(t, NewServer(b))
	go func() { done <- c.Pause(ctx) }()
	<-b.gone
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	<-b.gone
}
