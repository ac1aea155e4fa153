package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/refusal"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// policyPage is where network.PolicyName is: the DNS server's address, which has this port free.
var policyPage = netip.AddrPortFrom(DNS, httpPort)

const httpPort = 80

const (
	// webTimeout is how long a client may take for a request, and for an answer.
	webTimeout = 10 * time.Second
	// maxWebHead is what the head of a request may have, in bytes.
	maxWebHead = 16 << 10
	// keptRefusals is how many refusals a guest can look up.
	keptRefusals = 32
)

// web answers a guest's requests of HTTP in the place of the host that is asked: with a refusal, or, on an address of the
// network's own, with what its policy is.
type web struct {
	network *Network
	server  *http.Server
	conns   chan net.Conn

	mu      sync.Mutex
	refused []Event // the last ones, of which no two are alike
}

func newWeb(n *Network) *web {
	w := &web{network: n, conns: make(chan net.Conn)}
	w.server = &http.Server{
		Handler:           w,
		ReadHeaderTimeout: webTimeout,
		ReadTimeout:       webTimeout,
		WriteTimeout:      webTimeout,
		MaxHeaderBytes:    maxWebHead,
		ErrorLog:          slog.NewLogLogger(n.config.Logger.Handler(), slog.LevelDebug),
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, webConn{}, c) },
	}
	w.server.SetKeepAlivesEnabled(false) // each connection takes one of the guest's places
	return w
}

// serve works until the network ends.
func (w *web) serve() {
	context.AfterFunc(w.network.ctx, func() { w.server.Close() })
	_ = w.server.Serve(w)
}

// Accept implements net.Listener.
func (w *web) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.network.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. Accept ends with the network.
func (w *web) Close() error { return nil }

// Addr implements net.Listener.
func (w *web) Addr() net.Addr { return net.TCPAddrFromAddrPort(policyPage) }

// explained tells whether a refused connection is accepted all the same, to be answered in words. It is not if no host can
// have the address, and a cloud's metadata service is not there at all: programs look whether it is.
func explained(a netip.AddrPort, rule string) bool {
	return a.Port() == httpPort && a.Addr().IsGlobalUnicast() && rule != policy.RuleMetadata
}

// webConn is a guest's connection that is answered here. It is also the key under which a request's context has it.
type webConn struct {
	*gonet.TCPConn
	ep      tcpip.Endpoint
	wanted  attempt
	addr    netip.AddrPort // that the guest connected to
	done    chan struct{}
	closing *sync.Once
}

// Close ends what is said to the guest. Who has accepted the connection waits until it has arrived.
func (c webConn) Close() error {
	c.closing.Do(func() {
		_ = c.SetDeadline(time.Now())
		_ = c.ep.Shutdown(tcpip.ShutdownWrite)
		close(c.done)
	})
	return nil
}

// answer takes a guest's connection, and returns it when all is said. The caller ends it; there may be none.
func (w *web) answer(r *tcp.ForwarderRequest, queue *waiter.Queue, a netip.AddrPort, wanted attempt) tcpip.Endpoint {
	n := w.network
	ep := n.accept(r, wanted, queue)
	if ep == nil {
		return nil
	}
	c := webConn{gonet.NewTCPConn(queue, ep), ep, wanted, a, make(chan struct{}), new(sync.Once)}
	select {
	case w.conns <- c:
		select {
		case <-c.done:
		case <-n.ctx.Done():
		}
	case <-n.ctx.Done():
	}
	return ep
}

// ServeHTTP implements http.Handler.
func (w *web) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(webConn{}).(webConn)
	if !ok {
		http.Error(rw, "this connection is nobody's", http.StatusInternalServerError)
		return
	}
	if c.addr == policyPage {
		w.page(rw, r)
		return
	}
	refused := refusal.Refusal{
		Host: cmp.Or(c.wanted.name, c.addr.Addr().String()), Port: c.addr.Port(),
		Method: r.Method, Path: r.URL.EscapedPath(), Rule: c.wanted.rule, Hint: hint(c.wanted.rule),
	}
	refused.Allow, refused.Remedy = w.network.opens(Event{Proto: string(policy.TCP), Name: c.wanted.name, Addr: c.addr, Rule: c.wanted.rule})
	refused.ServeHTTP(rw, r)
}

// opens returns the rule that would open what was refused, with a command that adds it; nothing if no rule does, or if it is
// one request of a host.
func (n *Network) opens(e Event) (rule, remedy string) {
	if rule = n.rules.Load().opens(e); rule != "" && n.config.Remedy != nil {
		remedy = n.config.Remedy(rule)
	}
	return rule, remedy
}

// hint is what a guest is told of what no rule opens, if there is something to do about it.
func hint(rule string) string {
	switch rule {
	case RuleGateway, policy.RuleHost, policy.RuleLoopback:
		return "It is the computer of the sandbox's user, of which a sandbox can have single ports, as " + network.HostName + ": ask the user to make one that has this port."
	}
	return ""
}

// note keeps a refusal, so that the guest can ask for the reason of one that came without.
func (w *web) note(e Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	alike := func(o Event) bool {
		return o.Proto == e.Proto && o.Name == e.Name && o.Addr == e.Addr && o.Request == e.Request && o.Rule == e.Rule
	}
	w.refused = slices.DeleteFunc(w.refused, alike)
	if len(w.refused) == keptRefusals {
		w.refused = slices.Delete(w.refused, 0, 1)
	}
	w.refused = append(w.refused, e)
}

// Page is what a guest is told of its network's policy.
type Page struct {
	Mode      network.Mode  `json:"mode"`
	Rules     []string      `json:"rules,omitempty"`     // that open something beyond the mode
	Deny      []string      `json:"deny,omitempty"`      // rules that close something, whatever opens it
	HostPorts []string      `json:"hostPorts,omitempty"` // ports of the host that are open, each with a name at which it is
	Refused   []PageRefusal `json:"refused"`             // the last at the end
}

// PageRefusal is something that the guest was refused.
type PageRefusal struct {
	Time    time.Time `json:"time"`
	Proto   string    `json:"proto"`
	Name    string    `json:"name,omitempty"`
	Address string    `json:"address,omitempty"` // with the port
	Request string    `json:"request,omitempty"` // of HTTP, if it was one
	Rule    string    `json:"rule"`
	Allow   string    `json:"allow,omitempty"`  // the rule that would open it, if one would
	Remedy  string    `json:"remedy,omitempty"` // a command for the person whose sandbox it is
	Hint    string    `json:"hint,omitempty"`   // see refusal.Refusal
}

func (w *web) describe() Page {
	n := w.network
	p := Page{Mode: network.ModePublic, Refused: []PageRefusal{}}
	r := n.rules.Load()
	opens, closes := r.public.Allow, r.public.Deny
	if r.allow != nil {
		p.Mode = network.ModeAllowlist
		opens, closes = r.allow.Rules, r.allow.Deny
	}
	if n.config.Ask != nil {
		p.Mode = network.ModeAsk
	}
	for _, rule := range opens {
		p.Rules = append(p.Rules, rule.String())
	}
	for _, rule := range closes {
		p.Deny = append(p.Deny, rule.String())
	}
	for _, port := range n.config.HostPorts {
		p.HostPorts = append(p.HostPorts, port.Address())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.refused {
		r := PageRefusal{Time: e.Time, Proto: e.Proto, Name: e.Name, Request: e.Request, Rule: e.Rule}
		if e.Proto == string(policy.TCP) {
			r.Hint = hint(e.Rule)
		}
		if e.Addr.IsValid() {
			r.Address = e.Addr.String()
		}
		r.Allow, r.Remedy = n.opens(e)
		p.Refused = append(p.Refused, r)
	}
	return p
}

// page shows the policy, and takes what a program wants to have opened.
func (w *web) page(rw http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != "/":
		http.NotFound(rw, r)
	case r.Method == http.MethodPost:
		w.request(rw, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		rw.Header().Set("Allow", "GET, HEAD, POST")
		http.Error(rw, "This page is for reading, and for requests by POST.", http.StatusMethodNotAllowed)
	case strings.Contains(r.Header.Get("Accept"), "application/json"):
		rw.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(rw)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(w.describe())
	default:
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = rw.Write([]byte(w.describe().String()))
	}
}

// request asks the user for what a program in the guest names, with its reason, and answers when the user has. Where
// nobody is asked, the answer says what the user can do.
func (w *web) request(rw http.ResponseWriter, r *http.Request) {
	n := w.network
	r.Body = http.MaxBytesReader(rw, r.Body, maxWebHead)
	host, port, proto, err := policy.ParseDestination(r.PostFormValue("destination"))
	if err == nil && proto != policy.TCP {
		err = errors.New("only for TCP can the user be asked")
	}
	if err != nil {
		http.Error(rw, "Send a form with destination and reason, such as destination=https://example.com/ and reason=to read its documentation: "+err.Error(), http.StatusBadRequest)
		return
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	now, config := n.rules.Load(), n.config
	config.Policy, config.Allow = now.public, now.allow
	if now.allow != nil && now.allow.Lookup(host).Allow && !n.mayAsk(host) {
		http.Error(rw, spellingWhy, http.StatusTooManyRequests)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), lookupTimeout)
	defer cancel()
	answer, asks, err := check(ctx, config, host, port, proto)
	if err != nil {
		http.Error(rw, "The addresses of this name cannot be found out.", http.StatusBadGateway)
		return
	}
	v, addr := answer.Verdict, netip.AddrPortFrom(answer.Addr, port)
	if asks != nil {
		name := host
		if answer.Addr.IsValid() { // which was named itself
			name = ""
		}
		_ = http.NewResponseController(rw).SetWriteDeadline(time.Now().Add(QuestionTime + webTimeout))
		v = n.askBefore(r.Context(), name, addr, *asks, cmp.Or(Reason(r.PostFormValue("reason")), "none is given"))
	}
	if v.Allow {
		rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprintf(rw, "open: %s\n", v.Rule)
		return
	}
	refused := refusal.Refusal{Host: host, Port: port, Rule: v.Rule, Hint: hint(v.Rule)}
	refused.Allow, refused.Remedy = n.opens(Event{Proto: string(proto), Name: host, Addr: addr, Rule: v.Rule})
	refused.ServeHTTP(rw, r)
}

// String is the page for people.
func (p Page) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "This machine is a sandbox. Its network is %q:\n", p.Mode)
	switch p.Mode {
	case network.ModePublic:
		b.WriteString("it reaches the public Internet, and neither the computer that it runs on nor the networks around that.\n")
	case network.ModeAsk:
		b.WriteString("it reaches what a rule opens, and what the user allows who is asked for all else.\nAsk before you connect, with a reason, by\n    curl -d destination=https://example.com/ --data-urlencode 'reason=why the task needs it' http://" + network.PolicyName + "/\n")
	default:
		b.WriteString("it reaches what a rule opens, and nothing else.\n")
	}
	if len(p.Rules) > 0 {
		fmt.Fprintf(&b, "\nRules:\n    %s\n", strings.Join(p.Rules, "\n    "))
	}
	if len(p.Deny) > 0 {
		fmt.Fprintf(&b, "\nClosed, whatever opens it:\n    %s\n", strings.Join(p.Deny, "\n    "))
	}
	if len(p.HostPorts) > 0 {
		fmt.Fprintf(&b, "\nPorts of the computer that it runs on, which are open:\n    %s\n", strings.Join(p.HostPorts, "\n    "))
	}
	if len(p.Refused) > 0 {
		b.WriteString("\nRefused lately, the last one at the end:\n")
	}
	for _, r := range p.Refused {
		what := cmp.Or(strings.Trim(strconv.QuoteToASCII(r.Name), `"`), r.Address)
		if r.Request != "" {
			what += " (" + strings.Trim(strconv.QuoteToASCII(r.Request), `"`) + ")"
		}
		fmt.Fprintf(&b, "    %s %s %s: %s\n", r.Time.UTC().Format(time.TimeOnly), r.Proto, what, r.Rule)
		if r.Remedy != "" {
			fmt.Fprintf(&b, "        if the task needs it, ask the user to run: %s\n", r.Remedy)
		}
		if r.Hint != "" {
			fmt.Fprintf(&b, "        %s\n", r.Hint)
		}
	}
	return b.String()
}
