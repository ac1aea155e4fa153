package supervisor

import (
	"slices"
	"sync"
)

// deaths tells of the first file server that ends while the guest has what it serves.
type deaths struct {
	died chan struct{} // closed then

	mu       sync.Mutex
	server   fileServer // the one, once died is closed
	expected []fileServer
}

func watchDeaths(servers []fileServer) *deaths {
	d := &deaths{died: make(chan struct{})}
	for _, server := range servers {
		d.watch(server)
	}
	return d
}

// watch counts the end of the server from now on.
func (d *deaths) watch(server fileServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expected = slices.DeleteFunc(d.expected, func(s fileServer) bool { return s.Server == server.Server })
	go func() {
		<-server.Done()
		d.note(server)
	}()
}

// release does so no longer: the guest is about to lose what it serves.
func (d *deaths) release(server fileServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.expected = append(d.expected, server)
}

func (d *deaths) note(server fileServer) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.server.Server != nil || slices.ContainsFunc(d.expected, func(s fileServer) bool { return s.Server == server.Server }) {
		return
	}
	d.server = server
	close(d.died)
}

// tell returns a channel that gets the server.
func (d *deaths) tell() <-chan fileServer {
	told := make(chan fileServer, 1)
	go func() {
		<-d.died
		told <- d.server
	}()
	return told
}
