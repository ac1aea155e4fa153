package machine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/sourcery-zone/sandbox/agent"
	"github.com/sourcery-zone/sandbox/machine/layout"
)

// The supervisor's API, HTTP on the socket api.sock in the sandbox's runtime
// directory, which only its owner can enter:
//
//	GET  /v1/version           {"api": 1}: what the supervisor speaks
//	GET  /v1/state             State as JSON
//	POST /v1/stop?grace=30s    power down, and answer when the sandbox has ended
//	POST /v1/kill              the same without the power-down; ?keep=true to have
//	                           a snapshot restored: shares are written back, and
//	                           the sandbox is not removed
//	POST /v1/snapshots?tag=T   save a snapshot, and answer with its manifest;
//	                           &home=true copies the home, too; &passing=true does
//	                           not wait for the disk
//	POST /v1/home?to=D         copy the home, while the guest stands still, into the
//	                           draft D of a sandbox in the state directory
//	POST /v1/pause             let the guest stand still
//	POST /v1/resume            let it go on
//	POST /v1/resize?memory=M&disk=D   MiB, either may be absent: give the guest
//	                           that much memory, grow its disk, and answer with
//	                           Sizes
//	GET  /v1/memory            {"bytes": N}: the memory that the guest has now
//	GET  /v1/console           the console from its beginning; ?follow=true goes on;
//	                           with "Upgrade: console-input": its input, for one
//	                           writer at a time; ?take=true takes it from another
//	GET  /v1/ssh               with "Upgrade: ssh": an SSH connection to the guest's
//	                           agent, authenticated already
//	GET  /v1/qmp               with "Upgrade: qmp": QEMU's monitor, as QEMU itself
//	                           offers it; ?unsafe=true allows all commands

// apiVersion is the number in the paths above. It grows when a client of the
// previous number would misunderstand the answers; a supervisor lives as long
// as its guest, so it may be met by a newer or an older program than its own.
const apiVersion = 1

// upgradeSSH is the protocol name of GET /v1/ssh.
const upgradeSSH = "ssh"

// listenAPI serves the API until the returned function is called.
func (v *supervisor) listenAPI() (stop func(), err error) {
	if err := v.s.runtimeDirReady(); err != nil {
		return nil, fmt.Errorf("making the runtime directory: %w", err)
	}
	l, err := net.Listen("unix", v.s.Files().API())
	if err != nil {
		return nil, fmt.Errorf("listening for commands: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/version", serveVersion)
	mux.HandleFunc("GET /v1/state", v.serveState)
	mux.HandleFunc("POST /v1/stop", v.serveStop)
	mux.HandleFunc("POST /v1/kill", v.serveKill)
	mux.HandleFunc("POST /v1/pause", v.serveChange(v.pause))
	mux.HandleFunc("POST /v1/snapshots", v.serveSave)
	mux.HandleFunc("POST /v1/home", v.serveHome)
	mux.HandleFunc("POST /v1/resume", v.serveChange(v.resume))
	mux.HandleFunc("POST /v1/resize", v.serveResize)
	mux.HandleFunc("GET /v1/memory", v.serveMemory)
	mux.HandleFunc("GET /v1/console", v.serveConsole)
	mux.HandleFunc("GET /v1/ssh", v.serveSSH)
	mux.HandleFunc("GET /v1/qmp", v.serveQMP)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			v.log.Error("the API ended", "err", err)
		}
	}()
	return func() {
		// Those who asked for the end are still to be told of it: they wait
		// for the lock, not for an answer of this server.
		server.Close()
	}, nil
}

func serveVersion(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]int{"api": apiVersion})
}

func (v *supervisor) serveState(w http.ResponseWriter, _ *http.Request) {
	state := v.currentState()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(state)
}

func (v *supervisor) serveStop(w http.ResponseWriter, r *http.Request) {
	grace := DefaultGrace
	if s := r.FormValue("grace"); s != "" {
		d, err := time.ParseDuration(s)
		if err != nil || d < 0 {
			http.Error(w, fmt.Sprintf("grace is %q, but must be a duration such as 30s", s), http.StatusBadRequest)
			return
		}
		grace = d
	}
	v.requestStop(stopRequest{grace: grace, reason: "it was stopped"})
	w.WriteHeader(http.StatusAccepted)
}

func (v *supervisor) serveKill(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("keep") == "true" {
		v.requestStop(stopRequest{reason: "a snapshot was restored", keep: true, sync: true})
	} else {
		v.requestStop(stopRequest{reason: "it was killed"})
	}
	w.WriteHeader(http.StatusAccepted)
}

func (v *supervisor) serveConsole(w http.ResponseWriter, r *http.Request) {
	if !v.consoleReady(w, r) {
		return
	}
	if wantsConsoleInput(r) {
		v.serveConsoleInput(w, r)
		return
	}
	ctx := r.Context()
	if r.FormValue("follow") != "true" {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		ctx = ended
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_ = v.console.Follow(ctx, flusher{w, http.NewResponseController(w)})
}

// flusher sends each line on its way at once.
type flusher struct {
	io.Writer
	c *http.ResponseController
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err != nil {
		return n, err
	}
	return n, f.c.Flush()
}

func (v *supervisor) serveSSH(w http.ResponseWriter, r *http.Request) {
	state := v.currentState()
	if state.Status == StatusPaused {
		// State says so, too, unless the disk was too full for its file.
		http.Error(w, v.s.notRunning(state).Error(), http.StatusServiceUnavailable)
		return
	}
	client := v.agentClient()
	if client == nil {
		http.Error(w, "the guest's agent is not connected yet: wait until the sandbox is running", http.StatusServiceUnavailable)
		return
	}
	key, err := layout.ReadKey(v.s.Files().Key(layout.HostKey))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	down, ok := hijack(w, r, upgradeSSH)
	if !ok {
		return
	}
	defer down.Close()
	up := agent.Upstream{Shared: client.SSH(), Dial: v.loginToAgent}
	if err := agent.Forward(context.WithoutCancel(r.Context()), down, up, key); err != nil {
		v.log.Info("an ssh connection ended", "err", err)
	}
}

// hijack answers a request for another protocol, and returns the connection on which it is spoken,
// which the caller closes. When it returns false, the request was answered otherwise.
func hijack(w http.ResponseWriter, r *http.Request, protocol string) (net.Conn, bool) {
	if r.Header.Get("Upgrade") != protocol {
		http.Error(w, "this address needs the header Upgrade: "+protocol, http.StatusUpgradeRequired)
		return nil, false
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return nil, false
	}
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", protocol)
	if err := rw.Flush(); err != nil {
		conn.Close()
		return nil, false
	}
	return &bufferedConn{Conn: conn, r: rw.Reader}, true
}

// bufferedConn is a connection some of whose bytes were read ahead.
type bufferedConn struct {
	net.Conn
	r io.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// reporter writes reports as JSON lines; nobody may be reading any more.
func reporter(w io.Writer) func(report) {
	var mu sync.Mutex
	e := json.NewEncoder(w)
	return func(r report) {
		mu.Lock()
		defer mu.Unlock()
		_ = e.Encode(r)
	}
}
