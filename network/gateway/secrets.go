package gateway

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"slices"

	"github.com/sourcery-zone/sandbox/network/gateway/internal/wire"
	"github.com/sourcery-zone/sandbox/network/secret"
)

const (
	// MaxSecrets is how many a guest may have: each is an open file of whoever holds them.
	MaxSecrets = 64

	// maxSecret is what the hosts and headers of a secret may have together, and its placeholder, in bytes, so that each
	// fits into one message to the process. A placeholder is as long as its value.
	maxSecret = 16 << 10
)

// Secret is one that the guest has a placeholder of: requests to its hosts have the value in its place. For those, the
// gateway needs an Authority and Roots.
type Secret struct {
	Spec        string // see secret.Parse
	Placeholder string
	// Value is a file of secret.Value.File, which the process reads, and nobody here. Without one, requests with the
	// placeholder are refused. It is the caller's, and stays open until Close, or until SetSecret has put another one in its
	// place.
	Value *os.File
}

// heldSecret is a Secret as each process is told of it.
type heldSecret struct {
	name  string
	told  wire.Secret
	value *os.File
}

// holdSecrets reads what secrets are for. Where they come from is no business of the process, which may be in the guest's
// hands.
func holdSecrets(secrets []Secret) ([]heldSecret, error) {
	if len(secrets) > MaxSecrets {
		return nil, fmt.Errorf("%d secrets are too many: a guest has at most %d", len(secrets), MaxSecrets)
	}
	var held []heldSecret
	for _, s := range secrets {
		spec, err := secret.Parse(s.Spec)
		if err != nil {
			return nil, err
		}
		if !spec.AWS() { // of which it is a part what the secret is
			spec.Source = secret.Source{}
		}
		told := wire.Secret{Spec: spec.String(), Placeholder: s.Placeholder}
		if len(told.Spec) > maxSecret || len(told.Placeholder) > maxSecret {
			return nil, fmt.Errorf("the secret %s has more hosts and headers, or a longer placeholder, than the %d bytes that there may be of each", spec.Name, maxSecret)
		}
		held = append(held, heldSecret{spec.Name, told, s.Value})
	}
	return held, nil
}

// maxAnswers is how much the answers may have together, in bytes, so that they fit into one message with all else.
const maxAnswers = 32 << 10

// holdAnswers reads what is answered here.
func holdAnswers(answers map[string][]byte) (held []wire.Response, err error) {
	size := 0
	for _, address := range slices.Sorted(maps.Keys(answers)) {
		u, err := url.Parse(address)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.Port() != "" || u.Path == "" {
			return nil, fmt.Errorf("requests to %q cannot be answered: it is no https:// address with a path, and without a port", address)
		}
		if size += len(answers[address]); size > maxAnswers {
			return nil, fmt.Errorf("what requests are answered with has more than %d bytes", maxAnswers)
		}
		held = append(held, wire.Response{Host: u.Host, Port: 443, Path: u.EscapedPath(), JSON: answers[address]})
	}
	return held, nil
}

// SetSecret gives the secret of that name another value, as in Secret.Value, or takes it away if the file is nil: requests
// with its placeholder are refused from then on.
func (g *Gateway) SetSecret(name string, value *os.File) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := slices.IndexFunc(g.secrets, func(s heldSecret) bool { return s.name == name })
	if i < 0 {
		return fmt.Errorf("the guest has no secret called %s", name)
	}
	// The next process learns of it, should this one be gone.
	if err := g.tell(wire.Request{Value: &wire.Value{Name: name}}, value); isRefusal(err) {
		return fmt.Errorf("changing the secret %s: %w", name, err)
	}
	g.secrets[i].value = value
	return nil
}
