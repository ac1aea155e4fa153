package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/digitalocean/go-libvirt"
)

// DialLibvirt returns a client of the monitor of a domain that libvirt owns, after its handshake. uri
// is one of libvirt's for QEMU: qemu:///system, qemu:///session, and with a transport in front of
// ://HOST/ qemu+ssh, qemu+libssh, qemu+tls and qemu+tcp, with libvirt's own parameters. Commands take
// their way through libvirt, which marks the domain as tainted ("custom-monitor") for it, and may be
// surprised by those that change what it manages. Close ends the connection to libvirt.
func DialLibvirt(ctx context.Context, uri, domain string, o Options) (*Client, error) {
	u, err := parseLibvirtURI(uri)
	if err != nil {
		return nil, err
	}
	m, err := connectLibvirt(ctx, u, domain)
	if err != nil {
		return nil, explainLibvirt(uri, domain, err)
	}
	if err := m.greet(ctx); err != nil {
		_ = m.connection.Disconnect() // the first error is the one to tell
		return nil, explainLibvirt(uri, domain, err)
	}
	ours, theirs := net.Pipe()
	go func() {
		// It ends when the client is closed, or libvirt's connection has ended; the client knows either.
		_ = Serve(context.WithoutCancel(ctx), theirs, m, ServeOptions{})
		_ = m.connection.Disconnect()
	}()
	client := NewClient(ours, o)
	if err := client.Handshake(ctx); err != nil {
		return nil, err // the client is closed, and the rest with it
	}
	return client, nil
}

// parseLibvirtURI checks the URI and adds the socket where go-libvirt knows only that of the system's
// libvirtd: a session has one of its own, and so has the modular daemon.
func parseLibvirtURI(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "qemu" && !strings.HasPrefix(u.Scheme, "qemu+")) || (u.Path != "/system" && u.Path != "/session") {
		return nil, fmt.Errorf("%q is no libvirt URI for QEMU: write for example qemu:///system, qemu:///session or qemu+ssh://user@host/system", text)
	}
	local := u.Host == "" && (u.Scheme == "qemu" || u.Scheme == "qemu+unix")
	query := u.Query()
	if !local || query.Get("socket") != "" {
		return u, nil
	}
	query.Set("socket", libvirtSocket(u.Path, os.Getenv("XDG_RUNTIME_DIR"), os.Getuid()))
	u.RawQuery = query.Encode()
	return u, nil
}

// libvirtSocket returns the first of the sockets that exists, or else the usual one.
func libvirtSocket(path, runtimeDir string, uid int) string {
	dir := "/run/libvirt"
	if path == "/session" {
		if runtimeDir == "" {
			runtimeDir = fmt.Sprintf("/run/user/%d", uid)
		}
		dir = filepath.Join(runtimeDir, "libvirt")
	}
	usual := filepath.Join(dir, "libvirt-sock")
	for _, socket := range []string{usual, filepath.Join(dir, "virtqemud-sock")} {
		if _, err := os.Stat(socket); err == nil {
			return socket
		}
	}
	return usual
}

// connectLibvirt gives up waiting when ctx ends, which go-libvirt does not know.
func connectLibvirt(ctx context.Context, u *url.URL, domain string) (*libvirtMonitor, error) {
	dialer, err := libvirtDialer(u)
	if err != nil {
		return nil, err
	}
	m := &libvirtMonitor{connection: libvirt.NewWithDialer(mendingDialer{dialer})}
	connected := make(chan error, 1)
	go func() { connected <- m.connect(libvirt.RemoteURI(u), domain) }()
	select {
	case err := <-connected:
		return m, err
	case <-ctx.Done():
		go func() {
			if <-connected == nil {
				_ = m.connection.Disconnect() // nobody is left to tell
			}
		}()
		return nil, ctx.Err()
	}
}

// libvirtMonitor is a Backend that asks libvirt.
type libvirtMonitor struct {
	connection *libvirt.Libvirt
	domain     libvirt.Domain
	greeting   Greeting
}

func (m *libvirtMonitor) connect(uri libvirt.ConnectURI, domain string) error {
	err := m.connection.ConnectToURI(uri)
	if err != nil {
		return err
	}
	if m.domain, err = m.connection.DomainLookupByName(domain); err != nil {
		_ = m.connection.Disconnect() // the first error is the one to tell
	}
	return err
}

// greet asks for what QEMU would say first.
func (m *libvirtMonitor) greet(ctx context.Context) error {
	reply, err := m.RunContext(ctx, []byte(`{"execute":"query-version"}`))
	if err != nil {
		return err
	}
	version := struct{ Return *Version }{&m.greeting.Version}
	return json.Unmarshal(reply, &version)
}

func (m *libvirtMonitor) Greeting() Greeting { return m.greeting }

// RunContext passes a command to libvirt. go-libvirt knows no contexts, so an answer that comes too
// late is read by nobody.
func (m *libvirtMonitor) RunContext(ctx context.Context, text []byte) ([]byte, error) {
	c, err := parseCommand(text)
	if err != nil {
		return nil, err
	}
	answer := make(chan reply, 1)
	go func() {
		text, err := m.connection.QEMUDomainMonitorCommand(m.domain, string(c.body), 0)
		r := reply{message: new(message), err: err}
		if err == nil {
			r.err = json.Unmarshal([]byte(text), r.message)
		}
		answer <- r
	}()
	select {
	case r := <-answer:
		return c.reply(r)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reply is the command's reply as QEMU would have sent it to its caller.
func (c rawCommand) reply(r reply) ([]byte, error) {
	var own libvirt.Error
	switch {
	case errors.As(r.err, &own):
		return nil, &Error{Class: ClassLibvirt, Desc: own.Message, Command: c.name}
	case r.err != nil:
		return nil, r.err
	case r.message.Error != nil:
		return nil, &Error{Class: r.message.Error.Class, Desc: r.message.Error.Desc, Command: c.name}
	}
	return json.Marshal(okReply{Return: r.message.Return, ID: c.id})
}

// Events subscribes at libvirt. The channel is closed when ctx or the connection ends.
func (m *libvirtMonitor) Events(ctx context.Context) (<-chan Event, error) {
	// Not ctx: when its end meets an event, go-libvirt waits for ever for somebody to take that.
	theirs, err := m.connection.SubscribeQEMUEvents(context.WithoutCancel(ctx), m.domain.Name)
	if err != nil {
		return nil, err
	}
	events := make(chan Event)
	go func() {
		defer close(events)
		for e := range theirs { // to its end, for the same reason; Disconnect ends it
			event := Event{Event: e.Event}
			event.Timestamp.Seconds, event.Timestamp.Microseconds = int64(e.Seconds), int64(e.Microseconds)
			if len(e.Details) > 0 && json.Unmarshal(e.Details, &event.Data) != nil {
				continue // libvirt has parsed it before, so it cannot be
			}
			select {
			case events <- event:
			case <-ctx.Done():
			}
		}
	}()
	return events, nil
}

// explainLibvirt puts go-libvirt's errors into words for whoever has to act.
func explainLibvirt(uri, domain string, err error) error {
	var (
		own     libvirt.Error
		refused *Error
		dial    *net.OpError
	)
	switch {
	case libvirt.IsNotFound(err):
		return fmt.Errorf("libvirt at %s has no domain %q: virsh --connect '%[1]s' list --all shows those that it has", uri, domain)
	case errors.As(err, &refused):
		return fmt.Errorf("libvirt's domain %q cannot be asked (%s): virsh --connect '%s' start %[1]s starts it", domain, refused.Desc, uri)
	case errors.As(err, &own) && (own.Code == uint32(libvirt.ErrAuthFailed) || own.Code == uint32(libvirt.ErrAuthUnavailable)):
		return fmt.Errorf("libvirt at %s does not let you in (%s): join the group libvirt, or use qemu:///session", uri, own.Message)
	case errors.As(err, &own):
		return fmt.Errorf("libvirt at %s: %s", uri, own.Message)
	case errors.As(err, &dial) && dial.Net == "unix" && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)):
		return fmt.Errorf("there is no libvirt at %s (%v): start libvirtd or virtqemud, or name its socket with ?socket=PATH", uri, dial.Addr)
	case errors.As(err, &dial) && errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("the socket of libvirt at %s is not open to you (%v): join the group libvirt, or use qemu:///session", uri, dial.Addr)
	}
	return fmt.Errorf("connecting to libvirt at %s: %w", uri, err)
}
