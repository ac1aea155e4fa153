package stack

import (
	"container/list"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"sync"

	"github.com/sourcery-zone/sandbox/network/policy"
)

// maxNames is how many names have an address at once. It is more than the connections that can be in use of them.
const maxNames = 4096

// nameTable gives each open name an address of its own. Which one follows from the name, so that what a guest remembers
// is still right after the process was replaced, or the guest restored.
type nameTable struct {
	mu     sync.Mutex
	byName map[string]*namedAddress
	byAddr map[netip.Addr]*namedAddress
	pinned []*namedAddress
	unused list.List // of those that may be forgotten, the one that was asked for last at the end
}

type namedAddress struct {
	name    string
	addr    netip.Addr
	users   int
	element *list.Element // in unused; nil while there are users
}

func newNameTable() *nameTable {
	return &nameTable{byName: map[string]*namedAddress{}, byAddr: map[netip.Addr]*namedAddress{}}
}

// pin keeps names from being forgotten, in place of those that were pinned before.
func (t *nameTable) pin(names []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	before := t.pinned
	t.pinned = nil
	for _, name := range names {
		if a := t.entry(name); a != nil {
			t.use(a)
			t.pinned = append(t.pinned, a)
		}
	}
	for _, a := range before {
		t.release(a)
	}
}

// address returns a name's address, or none if all are in use.
func (t *nameTable) address(name string) (netip.Addr, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.entry(name)
	if a == nil {
		return netip.Addr{}, false
	}
	return a.addr, true
}

// has tells whether a name has an address already.
func (t *nameTable) has(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.byName[name]
	return ok
}

// entry finds or makes a name's entry. The caller holds the lock.
func (t *nameTable) entry(name string) *namedAddress {
	if a, ok := t.byName[name]; ok {
		if a.element != nil {
			t.unused.MoveToBack(a.element)
		}
		return a
	}
	if len(t.byName) >= maxNames {
		oldest := t.unused.Front()
		if oldest == nil {
			return nil
		}
		forgotten := t.unused.Remove(oldest).(*namedAddress)
		delete(t.byName, forgotten.name)
		delete(t.byAddr, forgotten.addr)
	}
	a := &namedAddress{name: name, addr: t.free(name)}
	t.byName[name], t.byAddr[a.addr] = a, a
	a.element = t.unused.PushBack(a)
	return a
}

// free returns an address that no name has. There are far more addresses than names.
func (t *nameTable) free(name string) netip.Addr {
	h := fnv.New32a()
	h.Write([]byte(name))
	first := binary.BigEndian.Uint32(policy.NameAddresses.Addr().AsSlice())
	mask := uint32(1)<<(32-policy.NameAddresses.Bits()) - 1
	for i := h.Sum32(); ; i++ {
		addr := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, first|i&mask)))
		if _, taken := t.byAddr[addr]; !taken {
			return addr
		}
	}
}

// name returns the name that an address stands for, or nothing.
func (t *nameTable) name(addr netip.Addr) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a, ok := t.byAddr[addr]; ok {
		return a.name
	}
	return ""
}

// hold keeps an address from being given to another name until it is released. It is for addresses of the table; for
// others, it does nothing.
func (t *nameTable) hold(addr netip.Addr) (release func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	a, ok := t.byAddr[addr]
	if !ok {
		return func() {}
	}
	t.use(a)
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.release(a)
	}
}

// release counts one user less. The caller holds the lock.
func (t *nameTable) release(a *namedAddress) {
	if a.users--; a.users == 0 {
		a.element = t.unused.PushBack(a)
	}
}

// use counts one more user. The caller holds the lock.
func (t *nameTable) use(a *namedAddress) {
	a.users++
	if a.element != nil {
		t.unused.Remove(a.element)
		a.element = nil
	}
}
