package stack

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// hello is the first message of a client that wants the host called name.
func hello(name string) string {
	var sent bytes.Buffer
	config := &tls.Config{ServerName: name, InsecureSkipVerify: name == ""}
	_ = tls.Client(recorder{Writer: &sent}, config).Handshake()
	return sent.String()
}

// recorder is a connection whose other end says nothing.
type recorder struct {
	io.Writer
	net.Conn
}

func (r recorder) Read([]byte) (int, error)    { return 0, io.EOF }
func (r recorder) Write(b []byte) (int, error) { return r.Writer.Write(b) }
func (r recorder) Close() error                { return nil }

func split(s string, size int) (parts []string) {
	for part := range slices.Chunk([]byte(s), size) {
		parts = append(parts, string(part))
	}
	return parts
}

// records cuts the message in a record into records of size bytes.
func records(record string, size int) string {
	var b []byte
	for _, part := range split(record[5:], size) {
		b = append(b, record[:3]...)
		b = binary.BigEndian.AppendUint16(b, uint16(len(part)))
		b = append(b, part...)
	}
	return string(b)
}

// FuzzReadOpening holds that what was read of the first bytes is not read differently when more come, and that a
// complete head is read in whatever pieces it comes.
func FuzzReadOpening(f *testing.F) {
	for _, seed := range []string{
		hello("good.example"), hello(""), records(hello("good.example"), 7), "GET / HTTP/1.1\r\nHost: good.example\r\n\r\n",
		"GET http://a.example/ HTTP/1.1\nHost: b.example:80\n\n", "CONNECT a:1 HTTP/1.1\r\n\r\n", "PRI * HTTP/2.0\r\n\r\n", "SSH-2.0\r\n", "\x16", "\r\n", " ", "",
	} {
		f.Add([]byte(seed), uint16(5))
	}
	f.Fuzz(func(t *testing.T, b []byte, at uint16) {
		b = b[:min(len(b), maxOpening)]
		whole, err := readOpening(b)
		if err != nil && err != errMore && err != errOpening {
			t.Fatalf("the error is %v", err)
		}
		part, perr := readOpening(b[:min(int(at), len(b))])
		switch {
		case perr == errMore:
		case perr != err || !slices.Equal(part.hosts, whole.hosts) || part.rule != whole.rule:
			t.Errorf("%q: the first %d bytes are %+v, %v, and all are %+v, %v", b, at, part, perr, whole, err)
		}
	})
}

// FuzzHostField holds that a request that a server of Go's takes is not for a host that was not seen.
func FuzzHostField(f *testing.F) {
	f.Add("GET / HTTP/1.1", "Host: good.example\r\nX: y")
	f.Add("GET http://evil.example/ HTTP/1.1", "host : evil.example")
	f.Fuzz(func(t *testing.T, line, fields string) {
		b := []byte(line + "\r\n" + fields + "\r\n\r\n")
		o, err := readOpening(b)
		if err != nil {
			return
		}
		host, ok := hostOfRequest(b)
		if !ok || host == "" {
			return
		}
		if !slices.Contains(o.hosts, withoutPort(host)) {
			t.Errorf("%q is for %q, and what was seen is %q", b, host, o.hosts)
		}
	})
}

func TestHostsAreComparedAsTheyAreMeant(t *testing.T) {
	for host, want := range map[string]bool{"good.example": true, "Good.Example.": true, "good.example..": false, "bad.example": false, "": false, "xgood.example": false, "good.exampl\u212a": false} {
		if got := sameHost(host, "good.example"); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
	if _, err := readOpening([]byte(strings.Repeat("\x16\x03\x01\x00\x01\x01", 2))); !errors.Is(err, errOpening) && !errors.Is(err, errMore) {
		t.Errorf("two bytes of two hellos: %v", err)
	}
}

// hostOfRequest is the host that package net/http takes a request to be for.
func hostOfRequest(b []byte) (string, bool) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
	if err != nil {
		return "", false
	}
	return r.Host, true
}
