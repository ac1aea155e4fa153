package stack

import (
	"net/netip"
	"sync"
)

// names remembers for which names addresses were answers. It is for people who read the log, and decides nothing.
type names struct {
	mu            sync.Mutex
	recent, older map[netip.Addr]string
}

// generation is how many addresses are remembered before older ones are forgotten.
const generation = 2048

func (n *names) add(a netip.Addr, name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.recent == nil || len(n.recent) >= generation {
		n.recent, n.older = map[netip.Addr]string{}, n.recent
	}
	n.recent[a] = name
}

func (n *names) of(a netip.Addr) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if name, ok := n.recent[a]; ok {
		return name
	}
	return n.older[a]
}
