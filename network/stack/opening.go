package stack

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	// maxOpening is what a client may say before it has named the host that it wants, in bytes, and openingTimeout how long
	// that may take from its first byte on.
	maxOpening     = 16 << 10
	openingTimeout = 10 * time.Second
)

// opening is what a client says first of the host that it wants.
type opening struct {
	hosts []string // no host, if it names none
	rule  string   // that forbids others
}

var (
	errMore    = errors.New("there is more to come")
	errOpening = errors.New("it cannot be read which host is meant")
)

// readOpening reads the first bytes of a connection. The error is errMore if they are not enough, and errOpening if they do
// name a host, in a way that could be read differently elsewhere. What is neither TLS nor HTTP names none.
func readOpening(b []byte) (opening, error) {
	const recordHandshake = 0x16
	if len(b) > 0 && b[0] == recordHandshake {
		host, err := readServerName(b)
		o := opening{rule: RuleServerName}
		if host != "" {
			o.hosts = []string{host}
		}
		return o, err
	}
	hosts, err := readHosts(b)
	return opening{hosts, RuleHostHeader}, err
}

// readServerName returns the name in a ClientHello (RFC 6066, section 3), or nothing if it has none.
func readServerName(b []byte) (name string, err error) {
	if err := wholeHello(b); err != nil {
		return "", err
	}
	stop := errors.New("that is all")
	read := false
	err = tls.Server(replay{Reader: bytes.NewReader(b)}, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			name, read = hello.ServerName, true
			return nil, stop
		},
	}).HandshakeContext(context.Background())
	if !read || !errors.Is(err, stop) {
		return "", errOpening
	}
	return name, nil
}

// wholeHello tells whether the first message of a handshake is there, which may be cut into several records.
func wholeHello(b []byte) error {
	const recordHeader, messageHeader, handshake, clientHello = 5, 4, 0x16, 1
	var message []byte
	for {
		if len(b) == 0 {
			return errMore
		}
		if b[0] != handshake {
			return errOpening
		}
		if len(b) < recordHeader {
			return errMore
		}
		length := int(binary.BigEndian.Uint16(b[3:]))
		if length == 0 || length > maxOpening {
			return errOpening
		}
		end := min(recordHeader+length, len(b))
		message = append(message, b[recordHeader:end]...)
		if len(message) > 0 && message[0] != clientHello {
			return errOpening
		}
		if len(message) >= messageHeader {
			size := int(binary.BigEndian.Uint32(message) & 0xffffff)
			if size > maxOpening {
				return errOpening
			}
			if len(message) >= messageHeader+size && end == recordHeader+length {
				return nil
			}
		}
		b = b[end:]
	}
}

// replay is a connection on which was said what a reader has.
type replay struct {
	io.Reader
	net.Conn // nil: nothing else is asked of it
}

func (r replay) Read(b []byte) (int, error)       { return r.Reader.Read(b) }
func (r replay) Write(b []byte) (int, error)      { return len(b), nil }
func (r replay) Close() error                     { return nil }
func (r replay) SetDeadline(time.Time) error      { return nil }
func (r replay) SetReadDeadline(time.Time) error  { return nil }
func (r replay) SetWriteDeadline(time.Time) error { return nil }

// maxMethod is longer than the methods of HTTP are, in bytes.
const maxMethod = 32

// readHosts returns the hosts that the head of a request of HTTP/1 names, in its target and its Host fields. It is
// strict: what one server takes for a part of a line, another one takes for a line.
func readHosts(b []byte) (hosts []string, err error) {
	b = bytes.TrimLeft(b, "\r\n") // as servers do (RFC 9112, section 2.2)
	first := bytes.TrimLeft(b, " \t")
	if len(first) == 0 {
		return nil, errMore
	}
	if first[0] < ' ' || '~' < first[0] {
		return nil, nil // another protocol
	}
	line, rest, whole := bytes.Cut(b, []byte("\n"))
	switch {
	case whole:
	case len(first) > maxMethod && !bytes.ContainsAny(first[:maxMethod], " \t"):
		return nil, nil
	default:
		return nil, errMore
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	if !bytes.Contains(bytes.ToUpper(line), []byte("HTTP/")) {
		return nil, nil // or HTTP/0.9, which knows no hosts
	}
	parts := strings.Split(string(line), " ")
	if len(parts) != 3 || !strings.HasPrefix(parts[2], "HTTP/1.") || strings.ContainsAny(string(line), "\r\t\x00") {
		return nil, errOpening // such as HTTP/2 without TLS, whose fields are compressed
	}
	if hosts, err = targetHosts(parts[0], parts[1]); err != nil {
		return nil, err
	}
	for {
		if line, rest, whole = bytes.Cut(rest, []byte("\n")); !whole {
			return nil, errMore
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return hosts, nil
		}
		name, value, ok := strings.Cut(string(line), ":")
		if !ok || strings.ContainsAny(name, " \t") || strings.ContainsAny(value, "\r\x00") {
			return nil, errOpening
		}
		if value = strings.Trim(value, " \t"); strings.EqualFold(name, "host") && value != "" {
			hosts = append(hosts, withoutPort(value))
		}
	}
}

// targetHosts returns the host of a request's target, which has one if it is for a proxy.
func targetHosts(method, target string) ([]string, error) {
	if method == "CONNECT" {
		return []string{withoutPort(target)}, nil
	}
	if strings.HasPrefix(target, "/") || target == "*" {
		return nil, nil
	}
	u, err := url.Parse(target)
	if err != nil || u.Host == "" {
		return nil, errOpening
	}
	return []string{withoutPort(u.Host)}, nil
}

func withoutPort(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.Trim(host[i+1:], "0123456789") == "" {
		return host[:i]
	}
	return host
}

// sameHost tells whether a client means the host called name, which is in small letters.
func sameHost(host, name string) bool {
	host = strings.TrimSuffix(host, ".")
	return len(host) == len(name) && strings.EqualFold(host, name) // of one length, so that all letters are ASCII's
}

// mismatchError is why a connection ends that was made for one host and asked for another.
type mismatchError struct{ rule string }

func (e *mismatchError) Error() string { return "it names another host than its address: " + e.rule }

// checkOpening reads a client's first bytes until they have named a host, and passes them on if it is the one called name.
// Until then, what the host sends goes to the guest: there are protocols in which it begins.
func (n *Network) checkOpening(ep tcpip.Endpoint, queue *waiter.Queue, host io.Writer, name string) (int64, error) {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventHUp | waiter.EventErr)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	var late <-chan time.Time
	first := make([]byte, 0, 1<<10)
	rule := ""
	for {
		k, terr := readMore(ep, &first)
		switch {
		case terr == nil && k > 0:
			o, err := readOpening(first)
			rule = o.rule
			switch {
			case err == nil:
				for _, wanted := range o.hosts {
					if !sameHost(wanted, name) {
						return 0, &mismatchError{rule}
					}
				}
				sent, err := host.Write(first)
				return int64(sent), err
			case err != errMore, len(first) >= maxOpening:
				return 0, &mismatchError{rule}
			}
			if late == nil {
				late = time.After(n.config.openingTimeout)
			}
		case isEnd(terr) && len(first) == 0:
			return 0, nil
		case isEnd(terr):
			return 0, &mismatchError{rule}
		case terr != nil && !isWouldBlock(terr):
			return 0, errors.New(terr.String())
		default:
			select {
			case <-readable:
			case <-late:
				return 0, &mismatchError{rule}
			case <-n.ctx.Done():
				return 0, context.Cause(n.ctx)
			}
		}
	}
}

// readMore appends what there is to read, up to maxOpening bytes in all.
func readMore(ep tcpip.Endpoint, first *[]byte) (int, tcpip.Error) {
	var b [2 << 10]byte
	w := tcpip.SliceWriter(b[:min(len(b), maxOpening-len(*first))])
	result, terr := ep.Read(&w, tcpip.ReadOptions{})
	if terr != nil {
		return 0, terr
	}
	*first = append(*first, b[:result.Count]...)
	return result.Count, nil
}
