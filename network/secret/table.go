package secret

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sourcery-zone/sandbox/network/aws"
)

// Table has the secrets of one guest, by their placeholders. It is safe for use by several at once.
type Table struct {
	mu      sync.Mutex
	entries []*entry             // as pointers, beyond which package fmt does not look
	view    atomic.Pointer[view] // nil after a change, until somebody asks
	signer  *aws.Signer
}

// Entry is one secret of a table.
type Entry struct {
	Spec        Spec
	Placeholder string
}

type entry struct {
	Entry
	folded   string              // the placeholder in small letters
	plain    string              // and without what could be percent-encoding
	paths    map[Host][][]string // the spec's
	value    Value
	previous Value // which a host may still tell of
}

// defaultHeaders are those in which clients send keys.
var defaultHeaders = []string{
	"Authorization", "X-Api-Key", "Api-Key", "Apikey", "X-Goog-Api-Key", "X-Auth-Token", "X-Auth-Key", "X-Access-Token",
	"Private-Token", "Job-Token", "Deploy-Token", "X-Vault-Token", "X-Figma-Token", "X-Subscription-Token", "Xi-Api-Key",
	"Ocp-Apim-Subscription-Key",
}

// Rules of requests that are refused because of a secret.
const (
	RuleMisplaced = "secret-misplaced" // a placeholder is where it is not to be put, or on its way to another host
	RuleNoValue   = "secret-missing"   // there is no value for it
)

// NewTable returns one with these, none of which has a value yet.
func NewTable(entries ...Entry) (*Table, error) {
	t := &Table{signer: aws.NewSigner()}
	for _, e := range entries {
		added := &entry{Entry: e, folded: strings.ToLower(e.Placeholder), plain: strings.ToLower(unescape(e.Placeholder))}
		if e.Placeholder == "" {
			return nil, fmt.Errorf("the secret %s has no placeholder", e.Spec.Name)
		}
		for _, other := range t.entries {
			if e.Spec.Name == other.Spec.Name {
				return nil, fmt.Errorf("there are two secrets called %s", e.Spec.Name)
			}
			// Of two at one place, it would be a guess which one is meant.
			if strings.Contains(added.folded, other.folded) || strings.Contains(other.folded, added.folded) {
				return nil, fmt.Errorf("the placeholders of %s and %s cannot be told from each other", e.Spec.Name, other.Spec.Name)
			}
		}
		var err error
		if added.paths, err = readPaths(e.Spec.Paths); err != nil {
			return nil, fmt.Errorf("the secret %s: %w", e.Spec.Name, err)
		}
		added.Spec.Headers = slices.Clone(e.Spec.Headers)
		if e.Spec.AWS() {
			added.Spec.Headers = []string{"Authorization"}
		} else if len(added.Spec.Headers) == 0 {
			added.Spec.Headers = slices.Clone(defaultHeaders)
		}
		for i, name := range added.Spec.Headers {
			added.Spec.Headers[i] = http.CanonicalHeaderKey(name)
		}
		t.entries = append(t.entries, added)
	}
	return t, nil
}

// now is the table as it is now.
func (t *Table) now() *view {
	if v := t.view.Load(); v != nil {
		return v
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	v := newView(t.entries)
	t.view.Store(v)
	return v
}

// Set gives the secret of that name its value, in place of the one of before. The zero value takes it away.
func (t *Table) Set(name string, v Value) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, e := range t.entries {
		if e.Spec.Name != name {
			continue
		}
		if e.value != v {
			e.value, e.previous = v, e.value
			t.view.Store(nil)
		}
		return nil
	}
	return fmt.Errorf("there is no secret called %s", name)
}

// Hosts returns those that get a secret, each once.
func (t *Table) Hosts() []Host {
	if t == nil {
		return nil
	}
	var hosts []Host
	for _, e := range t.now().entries {
		for _, host := range e.Spec.Hosts {
			if !slices.Contains(hosts, host) {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// Spec returns that of the secret of that name, with the headers that are meant where none are named.
func (t *Table) Spec(name string) Spec {
	for _, e := range t.now().entries {
		if e.Spec.Name == name {
			return e.Spec
		}
	}
	return Spec{}
}

// Format writes that there are secrets, whatever the verb.
func (t *Table) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[secrets]") }

// view is a table at one moment, which never changes.
type view struct {
	entries []entry
	hosts   map[Host]*hostView
}

// hostView is what a host gets, and what is masked in what it answers.
type hostView struct {
	entries []entry
	masks   []replacement
	text    *strings.Replacer // does the same to a text that is there as a whole
}

func newView(entries []*entry) *view {
	v := &view{hosts: map[Host]*hostView{}}
	of := map[Host][]entry{}
	for _, e := range entries {
		e := *e
		v.entries = append(v.entries, e)
		for _, host := range e.Spec.Hosts {
			if !slices.ContainsFunc(of[host], func(other entry) bool { return other.Spec.Name == e.Spec.Name }) {
				of[host] = append(of[host], e)
			}
		}
	}
	for host, entries := range of {
		for domain, others := range of { // which are all of AWS's, and so of one secret
			if domain != host && domain.covers(host) && !slices.ContainsFunc(entries, func(e entry) bool { return e.Spec.AWS() }) {
				entries = append(slices.Clone(entries), others...)
			}
		}
		h := &hostView{entries: entries, masks: masks(entries)}
		h.text = textReplacer(h.masks)
		v.hosts[host] = h
	}
	return v
}
