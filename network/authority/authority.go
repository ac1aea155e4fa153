// Package authority is the certificate authority of one sandbox. Its guest trusts it, and it vouches for the hosts to
// which the guest's requests are judged one by one, so that these can be read on their way.
//
// Whoever has the authority's key can be any host to that guest, and is nobody to all others. It is made once, kept on
// the host and nowhere else, and stays for as long as the sandbox does: programs that run have read the certificate.
package authority

import (
	"container/list"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"
)

const (
	// slack is how far a guest's clock may be behind: more than the difference to any time zone.
	slack = 48 * time.Hour
	// life is that of the authority, and leafLife that of what it vouches for, which is made anew when half of it is over.
	life     = 10 * 365 * 24 * time.Hour
	leafLife = 90 * 24 * time.Hour
	// maxLeafs is how many are kept: a rule such as *.example.com has as many hosts as a guest likes.
	maxLeafs = 256

	typeCertificate = "CERTIFICATE"
	typeKey         = "PRIVATE KEY"
	maxCommonName   = 64 // RFC 5280, appendix A.1
)

// Authority vouches for hosts.
type Authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	leafKey     *ecdsa.PrivateKey // that of all hosts, in this process only
	now         func() time.Time

	mu     sync.Mutex
	leafs  map[string]*list.Element
	recent list.List // of *leaf; the one that was asked for last is the first
}

type leaf struct {
	name        string
	certificate *tls.Certificate
}

// New makes an authority.
func New() (*Authority, error) { return create(time.Now) }

func create(now func() time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	everywhere := func(bits int) *net.IPNet { return &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)} }
	template := &x509.Certificate{
		// A name of its own, as clients look an authority up by its name.
		Subject:               pkix.Name{CommonName: "sandbox authority " + strings.ToLower(rand.Text()[:8])},
		NotBefore:             now().Add(-slack),
		NotAfter:              now().Add(life),
		KeyUsage:              x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		// Which names it vouches for is known by the rules only, which may change. It is never an address.
		PermittedDNSDomainsCritical: true,
		ExcludedIPRanges:            []*net.IPNet{everywhere(32), everywhere(128)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return complete(der, key, now)
}

func complete(der []byte, key *ecdsa.PrivateKey, now func() time.Time) (*Authority, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if !certificate.IsCA || !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, errors.New("its certificate is not that of its key")
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &Authority{certificate: certificate, key: key, leafKey: leafKey, now: now, leafs: map[string]*list.Element{}}, nil
}

// Parse reads what MarshalPEM wrote.
func Parse(text []byte) (*Authority, error) { return parse(text, time.Now) }

func parse(text []byte, now func() time.Time) (a *Authority, err error) {
	var der []byte
	var key *ecdsa.PrivateKey
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case typeCertificate:
			der = block.Bytes
		case typeKey:
			parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("the key of a certificate authority cannot be read: %w", err)
			}
			key, _ = parsed.(*ecdsa.PrivateKey)
		}
	}
	if der == nil || key == nil {
		return nil, errors.New("a certificate authority has a certificate and a key, and one of them is missing")
	}
	if a, err = complete(der, key, now); err != nil {
		return nil, fmt.Errorf("a certificate authority cannot be used: %w", err)
	}
	return a, nil
}

// MarshalPEM returns the certificate and the key. It is secret.
func (a *Authority) MarshalPEM() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return nil, err
	}
	return append(a.Certificate(), pem.EncodeToMemory(&pem.Block{Type: typeKey, Bytes: key})...), nil
}

// Certificate is what the guest is to trust, in PEM. It is no secret.
func (a *Authority) Certificate() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typeCertificate, Bytes: a.certificate.Raw})
}

// Leaf returns a certificate for a host, whose name is in small letters.
func (a *Authority) Leaf(name string) (*tls.Certificate, error) {
	if name == "" || len(name) > 253 || strings.ContainsAny(name, "* ") || net.ParseIP(name) != nil {
		return nil, fmt.Errorf("no certificate is made for %q, which is not the name of a host", name)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if element, ok := a.leafs[name]; ok {
		known := element.Value.(*leaf)
		if known.certificate.Leaf.NotAfter.Sub(a.now()) > leafLife/2 {
			a.recent.MoveToFront(element)
			return known.certificate, nil
		}
		a.recent.Remove(element)
		delete(a.leafs, name)
	}
	certificate, err := a.issue(name)
	if err != nil {
		return nil, err
	}
	if len(a.leafs) >= maxLeafs {
		oldest := a.recent.Remove(a.recent.Back()).(*leaf)
		delete(a.leafs, oldest.name)
	}
	a.leafs[name] = a.recent.PushFront(&leaf{name, certificate})
	return certificate, nil
}

func (a *Authority) issue(name string) (*tls.Certificate, error) {
	template := &x509.Certificate{
		DNSNames:    []string{name},
		NotBefore:   a.now().Add(-slack),
		NotAfter:    a.now().Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if len(name) <= maxCommonName {
		template.Subject.CommonName = name // for people; clients read the other one
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, a.leafKey.Public(), a.key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate for %s: %w", name, err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: a.leafKey, Leaf: parsed}, nil
}
