package authority

import (
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestAHostIsVouchedForToThoseWhoTrustTheAuthority(t *testing.T) {
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := a.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(kept)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(a.Certificate()), "KEY") {
		t.Error("what the guest gets has a key in it")
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(a.Certificate())
	for _, by := range []*Authority{a, again} { // as after a restart
		for _, name := range []string{"api.example.com", strings.Repeat("a.", 100) + "example"} {
			leaf, err := by.Leaf(name)
			if err != nil {
				t.Fatal(err)
			}
			for _, clock := range []time.Duration{-47 * time.Hour, 0, 30 * 24 * time.Hour} {
				if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: trusted, CurrentTime: time.Now().Add(clock)}); err != nil {
					t.Errorf("%s, %v from now: %v", name, clock, err)
				}
			}
			if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "other.example", Roots: trusted}); err == nil {
				t.Errorf("the certificate of %s is one for other.example", name)
			}
		}
	}
	other, err := New()
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := other.Leaf("api.example.com")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: "api.example.com", Roots: trusted}); err == nil {
		t.Error("another sandbox's authority is believed")
	}
}

func TestAnAuthorityMakesNoOtherAndVouchesForNoAddress(t *testing.T) {
	a, err := New()
	if err != nil {
		t.Fatal(err)
	}
	if c := a.certificate; !c.MaxPathLenZero || c.MaxPathLen != 0 || !c.PermittedDNSDomainsCritical || len(c.ExcludedIPRanges) != 2 || c.KeyUsage != x509.KeyUsageCertSign {
		t.Errorf("the authority may do more than vouch for hosts: %+v", c)
	}
	for _, name := range []string{"", "10.0.2.2", "::1", "*.example.com", "a b", strings.Repeat("a", 254)} {
		if _, err := a.Leaf(name); err == nil {
			t.Errorf("a certificate is made for %q", name)
		}
	}
}

func TestCertificatesAreKeptAndMadeAnewInTime(t *testing.T) {
	now := time.Now()
	a, err := create(func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, err := a.Leaf("a.example")
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxLeafs - 1 {
		if _, err := a.Leaf(fmt.Sprintf("%d.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	if again, err := a.Leaf("a.example"); err != nil || again != first {
		t.Errorf("one that is known is made again: %v", err)
	}
	if _, err := a.Leaf("one-more.example"); err != nil {
		t.Fatal(err)
	}
	if again, err := a.Leaf("a.example"); err != nil || again != first || len(a.leafs) != maxLeafs || a.recent.Len() != maxLeafs {
		t.Errorf("%d are kept, and not the one that was used last: %v", len(a.leafs), err)
	}
	now = now.Add(leafLife/2 + time.Hour)
	again, err := a.Leaf("a.example")
	if err != nil || again == first || len(a.leafs) != maxLeafs {
		t.Errorf("one that is about to expire is not made anew: %v", err)
	}
}

func TestWhatIsNoAuthorityIsRefused(t *testing.T) {
	a, _ := New()
	b, _ := New()
	kept, err := a.MarshalPEM()
	if err != nil {
		t.Fatal(err)
	}
	_, key, _ := strings.Cut(string(kept), "-----END CERTIFICATE-----\n")
	for _, text := range []string{"", "x", key, string(a.Certificate()), string(b.Certificate()) + key, strings.Replace(string(kept), "M", "N", 3)} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%.60q is taken for an authority", text)
		}
	}
}
