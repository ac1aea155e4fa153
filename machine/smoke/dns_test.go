package smoke

import (
	"context"
	"errors"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/sourcery-zone/sandbox/network"
)

// answer is what a server sends back for a question.
func answer(query []byte) ([]byte, error) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil {
		return nil, err
	}
	m.Response = true
	packed, err := m.Pack()
	return packed[:network.DNSHeader], err
}

func TestTheFirstServerThatAnswersIsTheOne(t *testing.T) {
	tries := map[string]int{}
	server, err := askAny(t.Context(), []string{"dead", "lossy", "alive"}, func(_ context.Context, server string, query []byte) ([]byte, error) {
		if tries[server]++; server == "dead" || tries[server] < dnsTries {
			return nil, errors.New("nobody is there")
		}
		return answer(query)
	})
	if err != nil || server != "lossy" || tries["dead"] != dnsTries || tries["lossy"] != dnsTries {
		t.Errorf("got %q, %v after %v tries", server, err, tries)
	}
	_, err = askAny(t.Context(), []string{"one", "two"}, func(context.Context, string, []byte) ([]byte, error) {
		return nil, errors.New("nobody is there")
	})
	if err == nil || !strings.Contains(err.Error(), "one: nobody is there") || !strings.Contains(err.Error(), "two: nobody is there") {
		t.Errorf("got %v", err)
	}
}
