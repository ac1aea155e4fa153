// Package libvirt reaches the monitors of domains that libvirt runs. It is apart from package qmp,
// whose users have a QEMU of their own.
package libvirt

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

	"github.com/sourcery-zone/sandbox/qmp"
)

// Dial returns a client of the monitor of a domain that libvirt owns, after its handshake. uri
// is one of libvirt's for QEMU: qemu:///system, qemu:///session, and with a transport in front of
// ://HOST/ qemu+ssh, qemu+libssh, qemu+tls and qemu+tcp, with libvirt's own parameters. Commands take
// their way through libvirt, which marks the domain as tainted ("custom-monitor") for it, and may be
// surprised by those that change what it manages. Close ends the connection to libvirt.
func Dial(ctx context.Context, uri, domain string, o qmp.Options) (*qmp.Client, error) {
	u, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	m, err := connect(ctx, u, domain)
	if err != nil {
		return nil, explain(uri, domain, err)
	}
	if err := m.greet(ctx); err != nil {
		_ = m.connection.Disconnect() // the first error is the one to tell
		return nil, explain(uri, domain, err)
	}
	ours, theirs := net.Pipe()
	go func() {
		// It ends when the client is closed, or libvirt's connection has ended; the client knows either.
		_ = qmp.Serve(context.WithoutCancel(ctx), theirs, m, qmp.ServeOptions{})
		_ = m.connection.Disconnect()
	}()
	client := qmp.NewClient(ours, o)
	if err := client.Handshake(ctx); err != nil {
		return nil, err // the client is closed, and the rest with it
	}
	return client, nil
}

// parseURI checks the URI and adds the socket where go-libvirt knows only that of the system's
// libvirtd: a session has one of its own, and so has the modular daemon.
func parseURI(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "qemu" && !strings.HasPrefix(u.Scheme, "qemu+")) || (u.Path != "/system" && u.Path != "/session") {
		return nil, fmt.Errorf("%q is no libvirt URI for QEMU: write for example qemu:///system, qemu:///session or qemu+ssh://user@host/system", text)
	}
	local := u.Host == "" && (u.Scheme == "qemu" || u.Scheme == "qemu+unix")
	query := u.Query()
	if !local || query.Get("socket") != "" {
		return u, nil
	}
	query.Set("socket", localSocket(u.Path, os.Getenv("XDG_RUNTIME_DIR"), os.Getuid()))
	u.RawQuery = query.Encode()
	return u, nil
}

// localSocket returns the first of the sockets that exists, or else the usual one.
func localSocket(path, runtimeDir string, uid int) string {
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

// connect gives up waiting when ctx ends, which go-libvirt does not know.
func connect(ctx context.Context, u *url.URL, domain string) (*monitor, error) {
	dialer, err := chooseDialer(u)
	if err != nil {
		return nil, err
	}
	m := &monitor{connection: libvirt.NewWithDialer(mendingDialer{dialer})}
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

// monitor is a qmp.Backend that asks libvirt.
type monitor struct {
	connection *libvirt.Libvirt
	domain     libvirt.Domain
	greeting   qmp.Greeting
}

func (m *monitor) connect(uri libvirt.ConnectURI, domain string) error {
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
func (m *monitor) greet(ctx context.Context) error {
	reply, err := m.RunContext(ctx, []byte(`{"execute":"query-version"}`))
	if err != nil {
		return err
	}
	version := struct{ Return *qmp.Version }{&m.greeting.Version}
	return json.Unmarshal(reply, &version)
}

func (m *monitor) Greeting() qmp.Greeting { return m.greeting }

// RunContext passes a command to libvirt. go-libvirt knows no contexts, so an answer that comes too
// late is read by nobody.
func (m *monitor) RunContext(ctx context.Context, text []byte) ([]byte, error) {
	c, err := qmp.ParseCommand(text)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		reply []byte
		err   error
	}
	answer := make(chan outcome, 1)
	go func() {
		text, err := m.connection.QEMUDomainMonitorCommand(m.domain, string(c.Body), 0)
		var o outcome
		o.reply, o.err = reply(c, []byte(text), err)
		answer <- o
	}()
	select {
	case o := <-answer:
		return o.reply, o.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// reply is what libvirt answered, or why it did not, as QEMU would have sent it to the command's caller.
func reply(c qmp.Command, text []byte, err error) ([]byte, error) {
	if own, ok := errors.AsType[libvirt.Error](err); ok {
		return nil, &qmp.Error{Class: qmp.ClassLibvirt, Desc: own.Message, Command: c.Name}
	}
	if err != nil {
		return nil, err
	}
	var r struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("libvirt's answer to %q is no message of QMP: %w", c.Name, err)
	}
	if r.Error != nil {
		return nil, &qmp.Error{Class: r.Error.Class, Desc: r.Error.Desc, Command: c.Name}
	}
	return c.Reply(r.Return)
}

// Events subscribes at libvirt. The channel is closed when ctx or the connection ends.
func (m *monitor) Events(ctx context.Context) (<-chan qmp.Event, error) {
	// Not ctx: when its end meets an event, go-libvirt waits for ever for somebody to take that.
	theirs, err := m.connection.SubscribeQEMUEvents(context.WithoutCancel(ctx), m.domain.Name)
	if err != nil {
		return nil, err
	}
	events := make(chan qmp.Event)
	go func() {
		defer close(events)
		for e := range theirs { // to its end, for the same reason; Disconnect ends it
			event := qmp.Event{Event: e.Event}
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

// explain puts go-libvirt's errors into words for whoever has to act.
func explain(uri, domain string, err error) error {
	var (
		own     libvirt.Error
		refused *qmp.Error
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
