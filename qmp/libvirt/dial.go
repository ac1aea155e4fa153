package libvirt

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"os/user"
	"strings"

	"github.com/digitalocean/go-libvirt/socket"
	"github.com/digitalocean/go-libvirt/socket/dialers"
)

// chooseDialer chooses go-libvirt's dialer for the URI's transport. go-libvirt can do so itself, but
// then the connection could not be mended as mendedConn does.
func chooseDialer(u *url.URL) (socket.Dialer, error) {
	_, transport, named := strings.Cut(u.Scheme, "+")
	switch {
	case named:
	case u.Host == "":
		transport = "unix"
	default:
		transport = "tls"
	}
	query := u.Query()
	allowed, ok := map[string][]string{
		"unix": {"socket"}, "tcp": nil, "tls": {"pkipath", "no_verify"},
		"ssh": {"socket", "keyfile"}, "libssh": {"socket", "keyfile", "known_hosts"},
	}[transport]
	if !ok {
		return nil, fmt.Errorf("the libvirt transport %q is not one of unix, ssh, libssh, tls and tcp", transport)
	}
	for name := range query {
		if name != "name" && !strings.Contains(" "+strings.Join(allowed, " ")+" ", " "+name+" ") {
			return nil, fmt.Errorf("the parameter %q of the libvirt URI is not known for the transport %s", name, transport)
		}
	}
	switch transport {
	case "unix":
		return dialers.NewLocal(dialers.WithSocket(query.Get("socket"))), nil
	case "tcp":
		var options []dialers.RemoteOption
		if u.Port() != "" {
			options = append(options, dialers.UsePort(u.Port()))
		}
		return dialers.NewRemote(u.Hostname(), options...), nil
	case "tls":
		return dialers.NewTLS(u.Hostname(), tlsOptions(u)...), nil
	}
	return sshDialer(u, transport)
}

func tlsOptions(u *url.URL) []dialers.TLSOption {
	var options []dialers.TLSOption
	if u.Port() != "" {
		options = append(options, dialers.UseTLSPort(u.Port()))
	}
	if path := u.Query().Get("pkipath"); path != "" {
		options = append(options, dialers.UsePKIPath(path))
	}
	if no := u.Query().Get("no_verify"); no != "" && no != "0" {
		options = append(options, dialers.WithInsecureNoVerify())
	}
	return options
}

// sshDialer takes the files of plain ssh for the transport ssh, and libvirt's own for libssh.
func sshDialer(u *url.URL, transport string) (socket.Dialer, error) {
	password, _ := u.User.Password()
	query := u.Query()
	// Empty values leave the defaults.
	options := []dialers.SSHOption{
		dialers.UseSSHPort(u.Port()), dialers.UseSSHUsername(u.User.Username()), dialers.UseSSHPassword(password),
	}
	if transport == "ssh" {
		current, err := user.Current()
		if err != nil {
			return nil, err
		}
		options = append([]dialers.SSHOption{dialers.WithSystemSSHDefaults(current)}, options...)
	}
	for name, option := range map[string]func(string) dialers.SSHOption{
		"socket": dialers.WithRemoteSocket, "keyfile": dialers.UseKeyFile, "known_hosts": dialers.UseKnownHostsFile,
	} {
		if value := query.Get(name); value != "" {
			options = append(options, option(value))
		}
	}
	return dialers.NewSSH(u.Hostname(), options...), nil
}

// mendingDialer makes connections whose events go-libvirt understands.
type mendingDialer struct{ socket.Dialer }

func (d mendingDialer) Dial() (net.Conn, error) {
	conn, err := d.Dialer.Dial()
	if err != nil {
		return nil, err
	}
	return &mendedConn{Conn: conn, in: bufio.NewReader(conn)}, nil
}

// The program and the procedure of QEMU's events in libvirt's remote protocol.
const (
	qemuProgram = 0x20008087
	qemuEvent   = 6
	maxPacket   = 32 << 20 // VIR_NET_MESSAGE_MAX is smaller
)

// mendedConn completes events that have no data. libvirt sends 0 for "no details follow" and then
// nothing; go-libvirt takes that 0 for padding, looks for details, finds the end of the packet, and
// drops the event: STOP, RESUME and POWERDOWN are among those that would never arrive.
type mendedConn struct {
	net.Conn
	in     *bufio.Reader
	packet []byte // what was read and not handed out
}

func (c *mendedConn) Read(p []byte) (int, error) {
	if len(c.packet) == 0 {
		packet, err := readPacket(c.in)
		if err != nil {
			return 0, err
		}
		c.packet = mend(packet)
	}
	n := copy(p, c.packet)
	c.packet = c.packet[n:]
	return n, nil
}

// readPacket reads a packet with the four bytes of its length, which count themselves.
func readPacket(in io.Reader) ([]byte, error) {
	packet := make([]byte, 4)
	if _, err := io.ReadFull(in, packet); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(packet)
	if length < 4 || length > maxPacket {
		return nil, fmt.Errorf("libvirt sent a packet of %d bytes, which cannot be", length)
	}
	packet = append(packet, make([]byte, length-4)...)
	_, err := io.ReadFull(in, packet[4:])
	return packet, err
}

// mend appends the length of no details. Details that are there end with a brace and at most three
// bytes of padding.
func mend(packet []byte) []byte {
	const program, procedure, header = 4, 12, 28
	if len(packet) < header ||
		binary.BigEndian.Uint32(packet[program:]) != qemuProgram ||
		binary.BigEndian.Uint32(packet[procedure:]) != qemuEvent ||
		binary.BigEndian.Uint32(packet[len(packet)-4:]) != 0 {
		return packet
	}
	packet = append(packet, 0, 0, 0, 0)
	binary.BigEndian.PutUint32(packet, uint32(len(packet)))
	return packet
}
