package gateway_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/sourcery-zone/sandbox/network/proxy"
)

// mostMemory is what the process may have had at most, in bytes: twice what was seen.
const mostMemory = 256 << 20

// A guest that asks for a lot on as many connections as it may have, and takes nothing of it.
func TestMemoryForDownloadsThatStallIsBounded(t *testing.T) {
	own, internet := newAuthority(t), newAuthority(t)
	p := newProviderOf(t, internet, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for data := make([]byte, 64<<10); ; {
			if _, err := w.Write(data); err != nil {
				return
			}
		}
	}))
	o := reading(t, own, internet)
	o.Allow, o.Upstream = []string{"https://api.example.com/**"}, p.upstream
	g, processes := startWith(t, o)
	inside := newGuest(t, g)
	connections := proxy.MaxConnections
	if raced { // the process would be ended for its memory
		connections /= 32
	}
	var clients sync.WaitGroup
	for range connections {
		clients.Go(func() {
			client := inside.client(own)
			client.Timeout = 10 * time.Minute // nobody tells the clients of a process that has ended
			over := client.Transport.(*http.Transport)
			over.DisableKeepAlives, over.ForceAttemptHTTP2 = false, true
			for range 2 { // streams of one connection
				answer, err := client.Get("https://api.example.com/")
				if err == nil {
					t.Cleanup(func() { answer.Body.Close() })
					_, err = answer.Body.Read(make([]byte, 1))
				}
				if err != nil || answer.ProtoMajor != 2 {
					t.Errorf("a download does not begin: %v", err)
				}
			}
		})
	}
	clients.Wait()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa((<-processes).pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if found == nil {
		t.Fatalf("the process has no memory: %s", status)
	}
	most, err := strconv.ParseInt(string(found[1]), 10, 64)
	t.Logf("the process has had %d MiB", most>>10)
	if err != nil || most<<10 > mostMemory {
		t.Errorf("the process has had %d MiB, more than %d: %v", most>>10, mostMemory>>20, err)
	}
}
