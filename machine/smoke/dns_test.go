package smoke

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

func TestNameServers(t *testing.T) {
	got := nameServers("# nameserver 1.1.1.1\nsearch example.org\nnameserver 10.0.2.3\n nameserver\tfd00::3 # here\nnameserver\n")
	if want := []string{"10.0.2.3", "fd00::3"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// answer makes what a server sends back for a question.
func answer(t *testing.T, query []byte, change func(*dnsmessage.Header)) []byte {
	t.Helper()
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		t.Fatal(err)
	}
	m.Response = true
	change(&m.Header)
	packed, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return packed[:dnsHeader]
}

func TestEveryAnswerWillDo(t *testing.T) {
	for _, code := range []dnsmessage.RCode{dnsmessage.RCodeSuccess, dnsmessage.RCodeNameError, dnsmessage.RCodeServerFailure, dnsmessage.RCodeRefused} {
		server, err := askAny(t.Context(), []string{"dead", "alive"}, func(_ context.Context, server string, query []byte) ([]byte, error) {
			if server == "dead" {
				return nil, errors.New("nobody is there")
			}
			return answer(t, query, func(h *dnsmessage.Header) { h.RCode = code }), nil
		})
		if err != nil || server != "alive" {
			t.Errorf("%v: got %q, %v", code, server, err)
		}
	}
}

func TestWhatIsNoAnswer(t *testing.T) {
	for want, reply := range map[string]func(query []byte) []byte{
		"no DNS message": func([]byte) []byte { return nil },
		"no answer to": func(query []byte) []byte {
			return answer(t, query, func(h *dnsmessage.Header) { h.ID++ })
		},
		"no answer to the question": func(query []byte) []byte { return query },
	} {
		tries := 0
		_, err := askAny(t.Context(), []string{"server"}, func(_ context.Context, _ string, query []byte) ([]byte, error) {
			tries++
			return reply(query), nil
		})
		if err == nil || !strings.Contains(err.Error(), want) || tries != dnsTries {
			t.Errorf("after %d tries got %v, want %q", tries, err, want)
		}
	}
}
