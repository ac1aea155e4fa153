package stack

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/sourcery-zone/sandbox/network"
	"github.com/sourcery-zone/sandbox/network/policy"
	"github.com/sourcery-zone/sandbox/network/refusal"
	"golang.org/x/net/dns/dnsmessage"
)

// get asks by HTTP for a URL whose host is an address, or network.PolicyName.
func (l *lab) get(method, url, accept string) (*http.Response, string) {
	l.t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, _, address string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			if host == network.PolicyName {
				answer := l.ask(network.PolicyName, dnsmessage.TypeA, 0)
				if len(answer.Answers) != 1 {
					return nil, fmt.Errorf("%s has no address: %v", host, answer)
				}
				a := answer.Answers[0].Body.(*dnsmessage.AResource)
				host = netip.AddrFrom4(a.A).String()
			}
			return l.connect(netip.MustParseAddrPort(net.JoinHostPort(host, port)))
		},
	}}
	url, query, _ := strings.Cut(url, "?form=")
	request, err := http.NewRequest(method, url, strings.NewReader(query))
	if err != nil {
		l.t.Fatal(err)
	}
	if query != "" {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	request.Header.Set("Accept", accept)
	response, err := client.Do(request)
	if err != nil {
		l.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		l.t.Fatalf("%s %s: %v", method, url, err)
	}
	return response, string(body)
}

func remedy(c *Config) { c.Remedy = func(rule string) string { return "open " + rule } }

func TestRefusedHTTPIsAnsweredInWords(t *testing.T) {
	l := newLab(t, allow(t, "other.example"), remedy)
	for addr, want := range map[string]refusal.Refusal{
		"93.184.215.14": {Rule: policy.RuleNotAllowed, Allow: "93.184.215.14", Remedy: "open 93.184.215.14"},
		"192.168.1.1":   {Rule: policy.RuleNotAllowed, Allow: "192.168.1.1", Remedy: "open 192.168.1.1"},
		"10.0.2.99":     {Rule: policy.RuleNotAllowed, Allow: "10.0.2.99", Remedy: "open 10.0.2.99"},
	} {
		want.Error, want.Host, want.Port, want.Method, want.Path = refusal.Error, addr, 80, "GET", "/a%20b"
		response, body := l.get("GET", "http://"+addr+"/a%20b?c", "application/json")
		var got refusal.Refusal
		if err := json.Unmarshal([]byte(body), &got); err != nil || got != want || response.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %d %+v, %v, want %+v", addr, response.StatusCode, got, err, want)
		}
		e := l.event(func(e Event) bool { return e.Addr.Addr().String() == addr })
		if e.Allowed || e.Rule != want.Rule {
			t.Errorf("%s is logged as %+v", addr, e)
		}
	}
	if _, dialed := l.seen(); len(dialed) > 0 {
		t.Errorf("the host dialled %v", dialed)
	}
}

func TestANameWithAClosedAddressIsRefusedInWords(t *testing.T) {
	l := newLab(t, allow(t, "lan.example"), resolver(zone{"lan.example": {"192.168.1.1"}}), remedy)
	_, body := l.get("GET", "http://"+l.address("lan.example").String()+"/", "application/json")
	var got refusal.Refusal
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Host != "lan.example" || got.Rule != policy.RulePrivate || got.Allow != "" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestThePolicyPage(t *testing.T) {
	for mode, o := range map[string][]option{"public": {remedy}, "allowlist": {remedy, allow(t, "other.example", "*.example.com:8443")}} {
		l := newLab(t, o...)
		_, _ = l.connect(netip.MustParseAddrPort("192.168.1.1:5432"))
		_, _ = l.connect(netip.MustParseAddrPort("192.168.1.1:5432"))
		_, _ = l.connect(netip.MustParseAddrPort("169.254.169.254:443"))
		_, _ = l.connect(netip.AddrPortFrom(Gateway, 5432))
		_, text := l.get("GET", "http://"+network.PolicyName+"/", "*/*")
		_, body := l.get("GET", "http://"+network.PolicyName+"/", "application/json")
		var page Page
		if err := json.Unmarshal([]byte(body), &page); err != nil {
			t.Fatalf("%v in\n%s", err, body)
		}
		if string(page.Mode) != mode || len(page.Refused) != 3 {
			t.Fatalf("the page of %s is\n%s", mode, body)
		}
		if r := page.Refused[0]; r.Address != "192.168.1.1:5432" || r.Allow != r.Address || r.Remedy != "open "+r.Address {
			t.Errorf("the first refusal is %+v", r)
		}
		if r := page.Refused[2]; r.Remedy != "" || !strings.Contains(r.Hint, "as host.sandbox.internal: ask the user") {
			t.Errorf("the refusal of a port of the host is %+v", r)
		}
		if mode == "allowlist" && strings.Join(page.Rules, " ") != "other.example *.example.com:8443" {
			t.Errorf("the rules are %v", page.Rules)
		}
		for _, part := range append(page.Rules, `"`+mode+`"`, "192.168.1.1:5432", "169.254.169.254:443", "open 192.168.1.1:5432", "gateway\n        It is the computer of the sandbox's user") {
			if !strings.Contains(text, part) {
				t.Errorf("%q is missing in\n%s", part, text)
			}
		}
		if response, _ := l.get("PUT", "http://"+network.PolicyName+"/", ""); response.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("PUT is answered by %s", response.Status)
		}
		if response, _ := l.get("GET", "http://"+network.PolicyName+"/etc", ""); response.StatusCode != http.StatusNotFound {
			t.Errorf("another path is answered by %s", response.Status)
		}
	}
}

// A guest may say anything to a page that is made in this process.
func TestWhatTheWebDoesNotTake(t *testing.T) {
	l := newLab(t)
	for name, text := range map[string]string{
		"no HTTP":      "SSH-2.0-x\r\n\r\n",
		"TLS":          "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n",
		"a long head":  "GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 4*maxWebHead) + "\r\n\r\n",
		"several":      strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 100),
		"a large body": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n" + strings.Repeat("x", 1<<20),
	} {
		c := l.mustConnect(netip.MustParseAddrPort("192.168.1.1:80"))
		go func() { _, _ = c.Write([]byte(text)) }()
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if response.StatusCode < 400 {
			t.Errorf("%s is answered by %s", name, response.Status)
		}
		if n, err := io.Copy(io.Discard, c); n > 64<<10 {
			t.Errorf("%s is answered by %d bytes, %v", name, n, err)
		}
	}
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	if l.network.tcp > 5 {
		t.Errorf("%d connections are open", l.network.tcp)
	}
}

// Its refusals do not outgrow the page.
func TestThePageIsBounded(t *testing.T) {
	l := newLab(t)
	for i := range 3 * keptRefusals {
		_, _ = l.connect(netip.AddrPortFrom(netip.MustParseAddr("192.168.1.1"), uint16(1000+i)))
	}
	page := l.network.web.describe()
	if len(page.Refused) != keptRefusals || page.Refused[keptRefusals-1].Address != fmt.Sprintf("192.168.1.1:%d", 999+3*keptRefusals) {
		t.Errorf("it has %d, the last of which is %+v", len(page.Refused), page.Refused[len(page.Refused)-1])
	}
}

// A program asks before it connects, and says why.
func TestAskingForARule(t *testing.T) {
	const form = "http://" + network.PolicyName + "/?form="
	asked, ask := asks()
	l := newLab(t, allow(t, "open.example"), ask, resolver(zone{"open.example": {"93.184.215.14"}, "api.example": {"93.184.215.14"}}), remedy)
	l.listen(443, func(c *net.TCPConn) { c.Close() })
	post := func(destination, reason string) (int, string) {
		response, body := l.get("POST", form+url.Values{"destination": {destination}, "reason": {reason}}.Encode(), "")
		return response.StatusCode, body
	}
	for destination, want := range map[string]string{"https://open.example/x": "open: open.example\n", "host.sandbox.internal:22": RuleNoName, "10.0.2.2:22": RuleGateway, "93.0.0.1": policy.RuleNotAllowed} {
		if _, body := post(destination, "because"); !strings.Contains(body, want) {
			t.Errorf("%s is answered by %q", destination, body)
		}
	}
	for _, destination := range []string{"", "a b", "ntp.example:123/udp"} {
		if code, body := post(destination, "because"); code != http.StatusBadRequest {
			t.Errorf("%q is answered by %d %q", destination, code, body)
		}
	}

	// Its question has the reason, as one line without control characters.
	answer := make(chan string, 1)
	go func() {
		_, body := post("https://api.example/", "to\n\x1b[31mread \u202eits documentation "+strings.Repeat("x", 1000))
		answer <- body
	}()
	q := asked.next(t)
	if want := "to [31mread its documentation xxx"; q.Host != "api.example" || q.Port != 443 || !strings.HasPrefix(q.Reason, want) || len(q.Reason) > maxReason || Reason(q.Reason) != q.Reason {
		t.Errorf("the question is %+v", q)
	}
	if err := l.network.AllowOnce(q.ID); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got != "open: "+RuleOnce+"\n" {
		t.Errorf("the answer is %q", got)
	}
	if end := asked.next(t); end.Answer != AnswerOnce {
		t.Errorf("the question ends as %+v", end)
	}

	// Once is the next connection, and the one after it is asked for anew.
	a := netip.AddrPortFrom(l.address("api.example"), 443)
	if err := <-l.connecting(a); err != nil {
		t.Errorf("the connection that was granted: %v", err)
	}
	second := l.connecting(a)
	if again := asked.next(t); again.ID == q.ID || again.Reason != "" {
		t.Errorf("the next question is %+v", again)
	}
	l.setRules([]string{"open.example"}, []string{"api.example"})
	l.isRefused(<-second)
	if _, body := post("https://api.example/", "please"); !strings.Contains(body, "deny") {
		t.Errorf("what is denied is answered by %q", body)
	}
}

func TestAskingWhereNobodyIsAsked(t *testing.T) {
	for mode, o := range map[string][]option{"public": {remedy}, "allowlist": {remedy, allow(t, "open.example")}} {
		l := newLab(t, append(o, resolver(zone{"lan.example": {"192.168.1.1"}}))...)
		response, body := l.get("POST", "http://"+network.PolicyName+"/?form=destination=lan.example:5432", "application/json")
		var got refusal.Refusal
		want := map[string]string{"public": "192.168.1.1:5432", "allowlist": "lan.example:5432"}[mode]
		if err := json.Unmarshal([]byte(body), &got); err != nil || response.StatusCode != http.StatusForbidden || got.Allow != want || got.Remedy != "open "+want {
			t.Errorf("%s: %d %q, %v", mode, response.StatusCode, body, err)
		}
	}
}
