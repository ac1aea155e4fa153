package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

func TestResolverFile(t *testing.T) {
	r := ParseResolver("# nameserver 1.1.1.1\ndomain old.example\nsearch corp.example lab.example.\nnameserver 10.0.2.3\n nameserver\tfd00::3 # here\nnameserver\n")
	if want := []string{"10.0.2.3", "fd00::3"}; !slices.Equal(r.Servers, want) {
		t.Errorf("got %v, want %v", r.Servers, want)
	}
	if got, want := r.SearchDomains(), []string{"corp.example", "lab.example"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestSearchDomainsThatAGuestCanBeTold(t *testing.T) {
	long := strings.Repeat("a", 60) + ".example"
	for search, want := range map[string][]string{
		"":                      nil,
		".":                     nil,
		"a,dns=6.6.6.6 b..c -x": {"-x"},
		strings.Repeat("a", 64) + " ok_dc.example":     {"ok_dc.example"},
		strings.TrimSpace(strings.Repeat(long+" ", 9)): {long, long},
		"x\x1b[2J y.example":                           {"y.example"},
	} {
		if got := (Resolver{Search: strings.Fields(search)}).SearchDomains(); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", search, got, want)
		}
	}
}

// world answers by the servers that are alive; the others are silent, or refuse.
func world(alive ...string) Exchange {
	return func(ctx context.Context, server string, query []byte) ([]byte, error) {
		switch {
		case slices.Contains(alive, server):
			return reply(query, func(*dnsmessage.Header) {})
		case strings.HasPrefix(server, "127."):
			return nil, errors.New("connection refused")
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
}

func reply(query []byte, change func(*dnsmessage.Header)) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response = true
	change(&m.Header)
	packed, err := m.Pack()
	return packed[:DNSHeader], err
}

func TestTheFirstServerThatAnswersIsChosen(t *testing.T) {
	for servers, tt := range map[string]struct {
		alive, server string
		err           string
	}{
		"":                            {"", "", "has no DNS server"},
		"fd00::3 fe80::1%eth0":        {"fd00::3", "", "(fd00::3, fe80::1%eth0) are of IPv6 only"},
		"fd00::3 192.0.2.1":           {"192.0.2.1", "192.0.2.1", ""},
		"nonsense 192.0.2.8":          {"192.0.2.8", "192.0.2.8", ""},
		"192.0.2.1 192.0.2.2":         {"192.0.2.1 192.0.2.2", "192.0.2.1", ""},
		"192.0.2.3 192.0.2.4 1.1.1.1": {"1.1.1.1", "1.1.1.1", ""},
		"192.0.2.5 127.0.0.53":        {"127.0.0.53", "127.0.0.53", ""},
		"127.0.0.9 192.0.2.9":         {"", "", "(127.0.0.9: connection refused; 192.0.2.9: no answer within 1s), so names cannot be resolved"},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := ParseResolver("nameserver " + strings.ReplaceAll(servers, " ", "\nnameserver "))
			server, err := r.ChooseDNS(t.Context(), ModeUser, time.Second, world(strings.Fields(tt.alive)...))
			if server != tt.server || (err == nil) != (tt.err == "") || !strings.Contains(fmt.Sprint(err), tt.err) && err != nil {
				t.Errorf("%q with %q alive: %q, %v; want %q, %q", servers, tt.alive, server, err, tt.server, tt.err)
			}
		})
	}
}

func TestOurNetworkAsksServersOfIPv6Too(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := ParseResolver("nameserver fd00::3\nnameserver 192.0.2.1")
		if server, err := r.ChooseDNS(t.Context(), ModePublic, time.Second, world("fd00::3", "192.0.2.1")); server != "fd00::3" || err != nil {
			t.Errorf("%q, %v", server, err)
		}
	})
}

func TestPutFirst(t *testing.T) {
	const text = "search x\nnameserver fd00::3\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
	for server, want := range map[string]string{"fd00::3": text, "192.0.2.2": "nameserver 192.0.2.2\n" + text} {
		if got := PutFirst(text, server); got != want {
			t.Errorf("%s: got %q, want %q", server, got, want)
		}
	}
}

func TestALostDatagramIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		_, err := Resolver{Servers: []string{"192.0.2.1"}}.ChooseDNS(t.Context(), ModePublic, time.Second, func(ctx context.Context, _ string, query []byte) ([]byte, error) {
			if tries++; tries == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return reply(query, func(*dnsmessage.Header) {})
		})
		if err != nil || tries != 2 {
			t.Errorf("after %d tries: %v", tries, err)
		}
	})
}

func TestEveryAnswerWillDo(t *testing.T) {
	for _, code := range []dnsmessage.RCode{dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError, dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused} {
		err := AskDNS(t.Context(), "server", func(_ context.Context, _ string, query []byte) ([]byte, error) {
			return reply(query, func(h *dnsmessage.Header) { h.RCode = code })
		})
		if err != nil {
			t.Errorf("%v: %v", code, err)
		}
	}
}

func TestWhatIsNoAnswer(t *testing.T) {
	for want, by := range map[string]func(query []byte) ([]byte, error){
		"no DNS message":            func([]byte) ([]byte, error) { return nil, nil },
		"no answer to":              func(query []byte) ([]byte, error) { return reply(query, func(h *dnsmessage.Header) { h.ID++ }) },
		"no answer to the question": func(query []byte) ([]byte, error) { return query, nil },
	} {
		err := AskDNS(t.Context(), "server", func(_ context.Context, _ string, query []byte) ([]byte, error) { return by(query) })
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
